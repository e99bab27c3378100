"""Where single samples begin to win against groups: a formula, and a bandit on which all of it is known.

    python benchmarks/crossover.py

A sample of a prompt x is an answer y with the score s = ∇ log π(y | x) and the reward r. What an update needs
is the mean γ of r s over prompts. Let

    V = the variance of (r - μ) s about its mean γ_x within a prompt, μ the prompt's mean reward
    t = the variance of γ_x between prompts, over V
    e = the mean of (b - μ)² |s|², b the baseline of a single sample, over V
    p = the cost that the samples of a prompt share (its photos, its text), over that of one completion

A single sample (r - b) s has the variance V (1 + e + t) and costs 1 + p. A group of G, whose baseline is the
mean of the other samples, has V / (G - 1) + V t and costs G + p. What has the smaller product of the two is
as sure for less, so single samples win if

    (1 + p) (1 + e + t) < (1 + p / G) (G / (G - 1) + G t)

The formula leaves out that two samples of a group share their baselines. Here prompts and answers are drawn,
updates are made of either kind, their squared distance to γ is measured, and the e at which both are equal at
equal cost is set beside the formula's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CASES = (
    (4, 60, 0.0),
    (4, 30, 0.1),
    (8, 60, 0.0),
    (8, 60, 0.1),
    (8, 12, 0.0),
    (8, 12, 0.4),
    (8, 5, 0.4),
    (16, 12, 0.4),
)
"""Samples of a group, answers of the bandit (the fewer, the larger t), and p."""


@dataclass(frozen=True)
class Bandit:
    """Prompts with a choice among answers, under one softmax whose logits are learnt.

    Attributes:
        probabilities: float (X, K), of the answers to each prompt.
        rewards: float (X, K).
    """

    probabilities: Array
    rewards: Array

    @classmethod
    def drawn(cls, answers: int, seed: int = 0, prompts: int = 64) -> Bandit:
        """One whose prompts differ in their mean reward and in what is right."""
        rng = np.random.default_rng(seed)
        logits = 0.3 * rng.standard_normal((prompts, answers))
        weights = np.exp(logits)
        own, shared = rng.standard_normal((prompts, answers)), 0.3 * rng.standard_normal(answers)
        return cls(weights / weights.sum(1, keepdims=True), own + shared + rng.standard_normal((prompts, 1)))

    @cached_property
    def means(self) -> Array:
        """The mean reward of each prompt, (X,)."""
        return (self.probabilities * self.rewards).sum(1)

    @cached_property
    def gradients(self) -> Array:
        """γ_x, (X, K): the gradient of a prompt's mean reward by the logits."""
        return self.probabilities * (self.rewards - self.means[:, None])

    @cached_property
    def weights(self) -> Array:
        """|s|² of each answer, (X, K), with s the answer's unit vector less the probabilities."""
        return 1 - 2 * self.probabilities + (self.probabilities**2).sum(1, keepdims=True)

    @cached_property
    def within(self) -> float:
        """V."""
        squares = (self.probabilities * self.weights * (self.rewards - self.means[:, None]) ** 2).sum(1)
        return float((squares - (self.gradients**2).sum(1)).mean())

    @cached_property
    def between(self) -> float:
        """The variance between prompts over V: t."""
        apart = self.gradients - self.gradients.mean(0)
        return float((apart**2).sum(1).mean()) / self.within

    def error(self, deviation: float) -> float:
        """The e of a baseline that misses each prompt's mean by this standard deviation."""
        return deviation**2 * float((self.probabilities * self.weights).sum(1).mean()) / self.within

    def draw(self, rng: np.random.Generator, count: int, group: int) -> tuple[NDArray[np.int64], ...]:
        """Prompts (count,) and answers (count, group)."""
        prompts = rng.integers(len(self.probabilities), size=count)
        edges = self.probabilities.cumsum(1)[prompts]
        answers = (rng.random((count, group, 1)) > edges[:, None]).sum(-1)
        return prompts, answers.clip(max=edges.shape[1] - 1)

    def distance(self, rng: np.random.Generator, count: int, group: int, deviation: float = 0.0) -> float:
        """The mean squared distance to γ of one prompt's update, measured.

        Args:
            rng: draws.
            count: updates to measure.
            group: completions of a prompt; 1 for a single sample.
            deviation: by how much the baseline of a single sample misses the prompt's mean.
        """
        target = self.gradients.mean(0)
        total, chunk = 0.0, max(1, 2_000_000 // (group * len(target)))
        for start in range(0, count, chunk):
            prompts, answers = self.draw(rng, min(chunk, count - start), group)
            rewards = self.rewards[prompts[:, None], answers]
            if group == 1:
                missed = deviation * rng.standard_normal(rewards.shape)
                advantages = rewards - self.means[prompts][:, None] - missed
            else:
                advantages = (rewards - rewards.mean(1, keepdims=True)) * group / (group - 1)
            updates = -advantages.sum(1, keepdims=True) * self.probabilities[prompts]
            np.add.at(updates, (np.arange(len(prompts))[:, None], answers), advantages)
            total += float(((updates / group - target) ** 2).sum())
        return total / count


def crossing(p: float, t: float, group: int) -> float:
    """The e below which single samples win, by the formula.

    Args:
        p: shared cost of a prompt over that of a completion, at least 0.
        t: variance of the gradient between prompts over that within, at least 0.
        group: completions of a group, at least 2.

    Example:
        >>> round(crossing(0.0, 0.0, 8) - 1 / 7, 6), crossing(0.4, 0.0, 8) < 0
        (0.0, True)
    """
    return (1 + p / group) / (1 + p) * (group / (group - 1) + group * t) - 1 - t


def measured_crossing(bandit: Bandit, p: float, group: int, updates: int, seed: int = 0) -> float:
    """The e at which updates of either kind are as far from γ at equal cost.

    Baselines of several errors are tried; the crossing lies between two of them, in proportion.
    """
    rng = np.random.default_rng(seed)
    grouped = (group + p) * bandit.distance(rng, updates // group, group)
    last: tuple[float, float] | None = None
    unit = bandit.error(1.0)
    for error in np.linspace(0, 2 * max(crossing(p, bandit.between, group), 0.1), 9):
        single = (1 + p) * bandit.distance(rng, updates, 1, (error / unit) ** 0.5)
        if single >= grouped:
            if last is None:
                return 0.0
            return float(last[0] + (error - last[0]) * (grouped - last[1]) / (single - last[1]))
        last = float(error), single
    sys.exit(f"single samples win with every e up to {error:.2f}")


def main() -> None:
    """Measure the cases, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--updates", type=int, default=400_000, help="completions of each measurement")
    options = arguments.parse_args()
    print("| G | p | t | e of the crossing, formula | measured | formula / measured |")
    print("| --- | --- | --- | --- | --- | --- |")
    for group, answers, p in CASES:
        bandit = Bandit.drawn(answers)
        formula = crossing(p, bandit.between, group)
        found = measured_crossing(bandit, p, group, options.updates)
        values = f"{bandit.between:.3f} | {formula:.3f} | {found:.3f} | {formula / found:.2f}"
        print(f"| {group} | {p:g} | {values} |")


if __name__ == "__main__":
    main()
