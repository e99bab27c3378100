"""Where CGPO comes to rest on a choice of one answer: formula, expected update and picture.

    python benchmarks/fixed_points.py --out docs/images/cgpo-fixed-points.png

The policy is a softmax over the answers. Its expected update with A = r - lambda c, c = p^(1/T), is followed
until it rests; the formula is p = ((r - mu) / lambda)^T where r is over mu, with mu so that p adds up to one;
for T = 1 it is sparsemax(r / lambda).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

GRADED = (1.0, 0.8, 0.5, 0.0)


def fixed_point(rewards: np.ndarray, weight: float, tokens: float = 1.0) -> np.ndarray:
    """The formula: probabilities (N,) of answers worth `rewards` (N,), by bisection on mu."""
    low, high = rewards.max() - weight, rewards.max()
    for _ in range(200):
        middle = (low + high) / 2
        total = (((rewards - middle).clip(0) / weight) ** tokens).sum()
        low, high = (middle, high) if total > 1 else (low, middle)
    return ((rewards - (low + high) / 2).clip(0) / weight) ** tokens


def follow(
    rewards: np.ndarray, weight: float, tokens: float = 1.0, steps: int = 60_000, rate: float = 0.2
) -> np.ndarray:
    """The probabilities (steps, N) along the expected update of the logits, from equal ones."""
    logits = np.zeros(len(rewards))
    path = np.empty((steps, len(rewards)))
    for step in range(steps):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        path[step] = p
        advantage = rewards - weight * p ** (1 / tokens)
        logits += rate * p * (advantage - p @ advantage)
    return path


def main() -> None:
    """Check the formula, print a table, draw the picture."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path("docs/images/cgpo-fixed-points.png"))
    options = arguments.parse_args()
    print("| rewards | lambda | T | formula | followed |\n|---|---|---|---|---|")
    cases = [
        (GRADED, 1.0, 1.0),
        ((1.0, 0.0, 0.0, 0.0), 1.0, 1.0),
        ((0.7, 0.7), 1.0, 1.0),
        (GRADED, 0.4, 1.0),
        (GRADED, 1.0, 4.0),
    ]
    for rewards, weight, tokens in cases:
        worth = np.array(rewards)
        formula, found = fixed_point(worth, weight, tokens), follow(worth, weight, tokens)[-1]
        assert np.abs(formula - found).max() < 0.01, (rewards, weight, tokens)
        texts = [", ".join(f"{value:.3f}" for value in each) for each in (formula, found)]
        shown = ", ".join(f"{value:g}" for value in rewards)
        print(f"| {shown} | {weight:g} | {tokens:g} | {' | '.join(texts)} |")
    draw(options.out)


def draw(path: Path) -> None:
    """The way to rest, and rest against lambda and against the tokens of an answer."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    worth = np.array(GRADED)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.3), dpi=110, sharey=True)
    way: Any
    way, dial, length = axes
    steps = 2000
    for column, (reward, curve) in enumerate(zip(GRADED, follow(worth, 1.0, steps=steps).T, strict=True)):
        [line] = way.plot(curve, label=f"r = {reward:g}")
        way.axhline(fixed_point(worth, 1.0)[column], color=line.get_color(), linestyle=":", linewidth=1)
    way.set_xlabel("expected updates (dotted: sparsemax)")
    way.set_ylabel("probability")
    weights = np.linspace(0.02, 3, 150)
    dial.plot(weights, [fixed_point(worth, weight) for weight in weights])
    dial.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    dial.set_xlabel("lambda (the paper's is 1)")
    tokens = np.geomspace(1, 60, 80)
    length.semilogx(tokens, [fixed_point(worth, 1.0, count) for count in tokens])
    length.set_xlabel("tokens T of the answer, lambda = 1")
    for axis in axes:
        axis.grid(alpha=0.3)
    way.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
