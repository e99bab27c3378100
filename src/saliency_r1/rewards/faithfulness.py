"""Faithfulness reward: whether the reasoning's statements on place, size, contrast and colour are true.

It is ours, not the paper's. A recipe uses it like a reward of a user:

    rewards: [saliency_r1.rewards:faithful]
    rewards_weights: [0.2]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.faithfulness import check
from saliency_r1.rewards.format import parsed
from saliency_r1.tasks import Task


def faithful(
    completions: Sequence[str],
    task: Sequence[str],
    example: Sequence[PromptExample],
    images: Sequence[Sequence[Image.Image]],
    **columns: Any,
) -> list[float | None]:
    """Return the rule of succession over the cue statements of each reasoning: (true + 1) / (all + 2).

    `language.faithfulness` checks them against the true mask. Three of three give .8, one of one .67, two of
    three .6, and no statement .5. So one more statement pays if it is more probable to be true than those
    before it. The plain share would reward the single statement that is nearly always true.

    Args:
        completions: the responses.
        task: the name of each task.
        example: the question of each, with its true masks.
        images: images of each question, mode RGB, mirrored if the question says so.

    Returns:
        A value in (0, 1) for each; None if it does not apply: for other tasks than SOD, questions without
        reasoning, photos without an object, and responses without the right form.

    Example:
        >>> import numpy as np
        >>> from saliency_r1.data.true_instances import encode
        >>> photo = Image.new("RGB", (40, 40), (90, 90, 90))
        >>> photo.paste((200, 30, 30), (2, 12, 14, 26))
        >>> truth = np.zeros((40, 40), bool)
        >>> truth[12:26, 2:14] = True
        >>> question = PromptExample("a", Task.SOD, Task.SOD.spec.prompt(), ("a.png",), ((encode(truth),),))
        >>> answer = "<think>It is on the left.</think><answer><rg>the red box</rg></answer>"
        >>> round(faithful([answer], ["sod"], [question], [[photo]])[0], 2)
        0.67
    """
    known: dict[int, Cues] = {}
    rewards: list[float | None] = []
    for text, kind, asked, shown in zip(completions, task, example, images, strict=True):
        judged = kind == Task.SOD and asked.reasoning and asked.masks[0]
        response = parsed(text, kind) if judged else None
        if response is None:
            rewards.append(None)
            continue
        if id(asked) not in known:  # the samples of a group share it
            known[id(asked)] = measure(shown[0], asked.truths(0)[0])
        checked = check(response.reasoning, known[id(asked)])
        rewards.append((checked.holds + 1) / (checked.total + 2))
    return rewards
