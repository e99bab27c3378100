"""The validation of a policy on held-out questions, answered greedily: reward and confidence."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.evaluation.calibration import auroc, calibrate
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.rewards.combined import SaliencyReward, Scored
from saliency_r1.tasks import Task
from saliency_r1.training.reinforcement.questions import Photos

GOOD = 0.5


@dataclass(frozen=True)
class Answer:
    """A greedy answer to a question.

    Attributes:
        example: the question.
        text: the response.
        tokens: number of its tokens.
        scored: its reward and masks.
        confidence: by kind, `all` and `answer`, in [0, 1].
    """

    example: PromptExample
    text: str
    tokens: int
    scored: Scored
    confidence: dict[str, float]


def answer(
    policy: TransformersPolicy,
    examples: Sequence[PromptExample],
    photos: Photos,
    reward: SaliencyReward,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 128,
    accelerator: Accelerator | None = None,
) -> list[Answer]:
    """Answer questions greedily and judge the answers; the model's mode is as before afterwards.

    With several processes each answers its share, and all get every answer. They ask the model equally often,
    so that its weights may be sharded.

    Args:
        policy: what answers.
        examples: the questions, of any tasks.
        photos: reads their photos.
        reward: judges.
        batch_size: questions at a time.
        max_new_tokens: where an answer is cut.
        accelerator: that of the processes, which must all call; None for this process alone.

    Returns:
        An answer for each question, in order.
    """
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    training = policy.model.training
    policy.model.eval()
    alike: dict[tuple[Task, bool], list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        alike[example.task, example.reasoning].append(number)
    answers: dict[int, Answer] = {}
    for (task, reasoning), numbers in alike.items():
        for start in range(0, len(numbers), batch_size * processes):
            together = numbers[start : start + batch_size * processes]
            # One for whom nothing is left takes part all the same.
            chosen = together[process::processes] or together[:1]
            asked = [examples[number] for number in chosen]
            images = [[photos(key) for key in example.keys] for example in asked]
            outputs = policy.respond(images, task, reasoning=reasoning, max_new_tokens=max_new_tokens)
            scores = reward.score([output.text for output in outputs], asked, images)
            for number, output, scored in zip(chosen, outputs, scores, strict=True):
                logprobs = output.token_logprobs or [-math.inf]
                sure = {
                    "all": math.exp(sum(logprobs) / len(logprobs)),
                    "answer": output.confidence or 0.0,
                }
                answers[number] = Answer(examples[number], output.text, len(output.token_ids), scored, sure)
    policy.model.train(training)
    if processes > 1:
        for others in gather_object([answers]):
            answers |= others
    return [answers[number] for number in range(len(examples))]


def summarise(answers: Sequence[Answer], prefix: str = "validation/") -> dict[str, float]:
    """The numbers that are logged; docs/training.md explains each.

    Raises:
        ValueError: if there are no answers.
    """
    rewards = np.array([one.scored.reward for one in answers])
    of_task = {
        task: np.mean([one.scored.reward for one in answers if one.example.task is task])
        for task in Task
        if any(one.example.task is task for one in answers)
    }
    values: dict[str, Any] = {
        "reward": np.mean(list(of_task.values())),
        "parse_rate": np.mean([one.scored.parsed for one in answers]),
        "length": np.mean([one.tokens for one in answers]),
        "expressions": len({one.text.partition("<answer>")[2] for one in answers}) / len(answers),
        **{f"reward/{task}": value for task, value in of_task.items()},
    }
    for kind in ("all", "answer"):
        sure = np.array([one.confidence[kind] for one in answers])
        values[f"confidence_{kind}/mean"] = sure.mean()
        values[f"confidence_{kind}/gap"] = abs(sure.mean() - rewards.mean())
        values[f"confidence_{kind}/ece"] = calibrate(sure, rewards).ece
        area = auroc(sure, rewards > GOOD)
        if area is not None:
            values[f"confidence_{kind}/auroc"] = area
    return {f"{prefix}{name}": float(value) for name, value in values.items()}
