"""Baselines of rewards: running means of tasks, running values of prompts.

A baseline lowers the noise of single samples and leaves the expected gradient as it is, as long as it does
not depend on the sample itself. So the mean of a task is that of earlier completions and of the others in the
batch, and the value of a prompt is that of its earlier visits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

TASK_MEMORY = 256
"""Completions after which what a task's mean remembers weighs 1/e (ours)."""
KEPT_A_VISIT = 0.9
"""The weight of a prompt's earlier visits after one more (ours; the paper has .875 to .96)."""
PRIOR_VISITS = 1.0
"""Visits that the mean of a prompt's task counts for (ours)."""


class RunningMeans:
    """Means of numbers by a key, in which older numbers weigh less.

    Args:
        kept: what the earlier numbers of a key weigh after one more, in (0, 1].

    Example:
        >>> means = RunningMeans(kept=1.0)
        >>> means.add(["sod", "sod", "sis"], [0.2, 0.4, 0.9])
        >>> round(means.mean("sod"), 2), means.mean("cosod")
        (0.3, nan)
    """

    def __init__(self, kept: float) -> None:
        self.kept = kept
        self.sums: dict[str, list[float]] = {}
        """The weighted sum and the sum of weights by key."""

    def add(self, keys: Sequence[str], values: Sequence[float]) -> None:
        """Add numbers; NaN is passed over, and numbers of one call weigh the same."""
        counts = Counter(key for key, value in zip(keys, values, strict=True) if not math.isnan(value))
        for key, count in counts.items():
            total, weight = self.sums.get(key, (0.0, 0.0))
            self.sums[key] = [total * self.kept**count, weight * self.kept**count]
        for key, value in zip(keys, values, strict=True):
            if not math.isnan(value):
                self.sums[key][0] += value
                self.sums[key][1] += 1.0

    def mean(self, key: str, without: float = math.nan) -> float:
        """The mean of a key, NaN if nothing is known.

        Args:
            key: whose.
            without: a number of the last call of `add` that is to be left out; NaN to leave none out.
        """
        total, weight = self.sums.get(key, (0.0, 0.0))
        if not math.isnan(without):
            total, weight = total - without, weight - 1.0
        return total / weight if weight > 1e-9 else math.nan

    def weight(self, key: str) -> float:
        """Return the number of values that the mean of a key stands for."""
        return self.sums.get(key, (0.0, 0.0))[1]


class Baselines:
    """The baselines of a run.

    Args:
        kind: `none`, `task` or `prompt`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rewards = RunningMeans(1 - 1 / TASK_MEMORY)
        self.confidences = RunningMeans(1 - 1 / TASK_MEMORY)
        self.prompts = RunningMeans(KEPT_A_VISIT)

    def of(
        self,
        tasks: Sequence[str],
        prompts: Sequence[str],
        rewards: Sequence[float],
        confidences: Sequence[float],
    ) -> tuple[list[float], list[float]]:
        """Return what to subtract from each reward and each confidence; the numbers are then remembered.

        Args:
            tasks: task of each completion of the batch, over all processes.
            prompts: what tells its prompt from all others.
            rewards: NaN where there is none.
            confidences: confidence of each.

        Returns:
            A baseline of each reward and one of each confidence; NaN where nothing is known yet. All 0 for
            `none`.
        """
        if self.kind == "none":
            return [0.0] * len(rewards), [0.0] * len(rewards)
        judged = [math.nan if math.isnan(r) else c for r, c in zip(rewards, confidences, strict=True)]
        self.rewards.add(tasks, rewards)
        self.confidences.add(tasks, judged)
        taken = [self.rewards.mean(*each) for each in zip(tasks, rewards, strict=True)]
        centres = [self.confidences.mean(*each) for each in zip(tasks, judged, strict=True)]
        if self.kind == "prompt":
            taken = [self._of_prompt(*each) for each in zip(prompts, taken, strict=True)]
            self.prompts.add(prompts, rewards)
        return taken, centres

    def _of_prompt(self, prompt: str, of_task: float) -> float:
        """The mean of the earlier visits, with the task's mean as `PRIOR_VISITS` more."""
        seen, weight = self.prompts.mean(prompt), self.prompts.weight(prompt)
        if math.isnan(seen) or math.isnan(of_task):
            return of_task if math.isnan(seen) else seen
        return (weight * seen + PRIOR_VISITS * of_task) / (weight + PRIOR_VISITS)

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """Return the memory, for JSON."""
        return {
            "rewards": self.rewards.sums,
            "confidences": self.confidences.sums,
            "prompts": self.prompts.sums,
        }

    def remember(self, content: Mapping[str, dict[str, list[float]]]) -> None:
        """Go on with what `to_dict` gave."""
        self.rewards.sums = content["rewards"]
        self.confidences.sums = content["confidences"]
        self.prompts.sums = content["prompts"]
