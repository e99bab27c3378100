"""The training curves of the nano model, drawn from the logs of its runs.

python benchmarks/curves.py --segmenter runs/segmenter runs/segmenter-scenes \
    --sft runs/sft --rl runs/cgpo-names --out docs/images
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from saliency_r1.training.logs import read_metrics

Curve = tuple[list[float], list[float]]
SMOOTHED = 10


def main() -> None:
    """Draw a picture for each folder."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--segmenter", type=Path, nargs="*", default=[], help="folders with metrics.csv")
    arguments.add_argument("--sft", type=Path, nargs="*", default=[], help="folders with metrics.csv")
    arguments.add_argument("--rl", type=Path, nargs="*", default=[], help="folders with metrics.csv")
    arguments.add_argument("--out", type=Path, default=Path("docs/images"))
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in options.segmenter:
        logs = metrics(folder)
        kinds = [kind for kind in ("composed", "scenes") if f"validation/{kind}_iou" in logs]
        draw(
            options.out / f"{folder.name}-curves.png",
            {
                "loss, training": {"loss": logs["loss"]},
                "IoU": {
                    "training, all": logs["iou"],
                    "held out, the salient object": logs["validation/iou"],
                    **{f"held out, {kind}, the one meant": logs[f"validation/{kind}_iou"] for kind in kinds},
                },
                "held out": {
                    "MAE, the salient object": logs["validation/mae"],
                    **{
                        f"{kind}: wrong object of two": wrong(logs[f"validation/{kind}_right"])
                        for kind in kinds
                    },
                },
            },
        )
    for folder in options.sft:
        logs = metrics(folder)
        draw(
            options.out / f"{folder.name}-curves.png",
            {
                "loss": {"training": logs["loss"], "held out": logs["eval_loss"]},
                "token accuracy": {
                    "training": logs["mean_token_accuracy"],
                    "held out": logs["eval_mean_token_accuracy"],
                },
                "learning rate": {"warm-up and cosine": logs["learning_rate"]},
            },
        )
    for folder in options.rl:
        logs = metrics(folder)
        own = [name for name in logs if name.startswith("reward/own/")]
        draw(
            options.out / f"{folder.name}-curves.png",
            {
                "reward, held out: change": {
                    name.removeprefix("validation/"): change(curve)
                    for name, curve in logs.items()
                    if name.startswith("validation/reward")
                },
                "confidence, held out": {
                    f"{kind}: {name}": logs[f"validation/confidence_{kind}/{key}"]
                    for kind in ("all", "answer")
                    for key, name in (("gap", "abs(mean c - mean r)"), ("ece", "ECE"))
                },
                f"training, means of {SMOOTHED} logs": {
                    name: smooth(logs[name]) for name in ("reward", "confidence/mean", *own)
                },
            },
        )


def metrics(folder: Path) -> dict[str, Curve]:
    """The metrics of a run against its steps."""
    logs: dict[str, Curve] = defaultdict(lambda: ([], []))
    for step, metric, value in read_metrics(folder / "metrics.csv"):
        logs[metric][0].append(step)
        logs[metric][1].append(value)
    logs.update(columns(folder / "train.csv"))
    logs.update({f"validation/{name}": curve for name, curve in columns(folder / "validation.csv").items()})
    return logs


def change(curve: Curve) -> Curve:
    """What has been gained since the first value."""
    return curve[0], [value - curve[1][0] for value in curve[1]]


def smooth(curve: Curve) -> Curve:
    """The mean of each value and those before it, `SMOOTHED` in all."""
    whole = range(SMOOTHED, len(curve[1]) + 1)
    return curve[0][SMOOTHED - 1 :], [sum(curve[1][end - SMOOTHED : end]) / SMOOTHED for end in whole]


def columns(path: Path) -> dict[str, Curve]:
    """The columns of a table against its `step`, as segmenter runs logged before 0.2.0; none without it."""
    found: dict[str, Curve] = defaultdict(lambda: ([], []))
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    found[name][0].append(float(row["step"]))
                    found[name][1].append(float(value))
    return found


def wrong(right: Curve) -> Curve:
    """The complement of a share."""
    return right[0], [1 - value for value in right[1]]


def draw(path: Path, panels: dict[str, dict[str, Curve]]) -> None:
    """One panel beside the other, a line for each curve."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), dpi=110)
    axis: Any
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, (steps, values) in curves.items():
            axis.plot(steps, values, label=label, marker="o" if len(steps) < 12 else None, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("optimiser step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    main()
