"""The settings of CGPO: TRL's GRPOConfig, with one completion a prompt and a confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

CONFIDENCES = ("all", "answer", "none")
BASELINES = ("none", "task", "prompt")


class _Single(int):
    """The number 1, let through by TRL's check that a group has at least two completions."""

    def __lt__(self, other: Any) -> bool:
        return False


@dataclass
class CGPOConfig(GRPOConfig):
    """Settings of `CGPOTrainer`; those of GRPOConfig hold as they are, but for these.

    Attributes:
        confidence: c in A = r - c. That c is the policy's confidence in its response is the paper's; it does
            not say how it is computed. `all` (ours): exp of the mean log-probability of the sampled tokens.
            `answer` (ours): the same over the tokens of the expressions alone, or over all tokens of a
            response that has none. `none`: no c, single-sample REINFORCE, the control.
        brake: the weight of c (ours), at least 0; the paper's is 1.
        baseline: what is taken from r beside. `none` (paper): nothing, A = r - brake c. `task` (ours): the
            running mean b of the task's rewards, with c less its own running mean, so that the brake says
            nothing of the height of r: A = (r - b) - brake (c - mean c of the task). `prompt` (after
            Single-stream Policy Optimization, arXiv 2509.13232): the same with b the running value of the
            prompt, for prompts that are visited several times. Tasks are told apart by the data's column
            `task`.
        scale_rewards: `none`, or `batch` to divide A by its standard deviation over the batch.
        num_generations: 1, and 1 alone.
        disable_dropout: True by default: c is to be the probability that the response was sampled with.
        log_multimodal: False by default: gathering the images of all processes for a table costs time.

    Raises:
        ValueError: for settings that do not fit together, with what was given and how to fix it.
    """

    confidence: str = field(default="all", metadata={"help": "Confidence in A = r - brake c."})
    brake: float = field(default=1.0, metadata={"help": "Weight of the confidence in A = r - brake c."})
    baseline: str = field(default="none", metadata={"help": "What is taken from r: none, task or prompt."})
    scale_rewards: str = field(default="none", metadata={"help": "none, or batch to divide A by its std."})
    num_generations: int = field(default=1, metadata={"help": "Completions a prompt: 1."})
    num_generations_eval: int | None = field(default=1, metadata={"help": "Completions in evaluation: 1."})
    disable_dropout: bool = field(default=True, metadata={"help": "Whether to disable dropout."})
    log_multimodal: bool = field(default=False, metadata={"help": "Whether to log images."})

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"confidence is {self.confidence!r}: choose one of {', '.join(CONFIDENCES)}")
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline is {self.baseline!r}: choose one of {', '.join(BASELINES)}")
        if not (math.isfinite(self.brake) and self.brake >= 0):
            raise ValueError(f"brake is {self.brake}: choose 0 or more; the paper's is 1")
        if self.num_generations != 1 or self.num_generations_eval not in (None, 1):
            raise ValueError(
                f"num_generations is {self.num_generations} and num_generations_eval "
                f"{self.num_generations_eval}: CGPO has one completion a prompt; leave them out, or use GRPO"
            )
        cut = {
            "top_p": (self.top_p, 1.0),
            "top_k": (self.top_k, 0),
            "min_p": (self.min_p, None),
            "repetition_penalty": (self.repetition_penalty, 1.0),
        }
        for name, (value, whole) in cut.items():
            if value != whole and value:
                raise ValueError(
                    f"{name} is {value}: the confidence is the probability under the whole distribution; "
                    f"set it to {whole}, and sharpen with temperature"
                )
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: choose a number over 0, such as 1")
        if self.scale_rewards not in ("none", "batch"):
            raise ValueError(
                f"scale_rewards is {self.scale_rewards!r}: CGPO has no groups; choose none or batch"
            )
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError(
                f"multi_objective_aggregation is {self.multi_objective_aggregation!r}: r and c are "
                "compared as they are; leave it out"
            )
        self.num_generations = _Single(1)
        super().__post_init__()
        self.num_generations, self.num_generations_eval = 1, 1
        check_saving(self)


def check_saving(config: GRPOConfig) -> None:
    """Check that checkpoints fall between two generations: what was generated is not saved with one.

    Raises:
        ValueError: if they do not.
    """
    steps = (config.steps_per_generation or config.gradient_accumulation_steps) * config.num_iterations
    period = steps // math.gcd(steps, config.gradient_accumulation_steps)
    if config.save_strategy == "steps" and config.save_steps >= 1 and config.save_steps % period:
        raise ValueError(
            f"save_steps is {config.save_steps}, but completions serve {period} optimiser steps and are not "
            f"saved: choose a multiple of {period}, so that a run that goes on equals an unbroken one"
        )
