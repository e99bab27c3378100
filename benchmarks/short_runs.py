"""Short trainings of the nano segmenter, of equal minutes, as a Markdown table.

    python benchmarks/short_runs.py --minutes 6 --out runs/short

Each run changes one thing of the first: the backbone (Lite0 or Lite2), the pixels of a side (256 or 320), or
whether U²-Net's soft masks say what stands out in the photos of instances (`--teacher`, a folder of
`saliency-r1 data masks`, with a folder for each data set). All start from ImageNet's weights, on the data of
`recipes/nano/segmenter-fine.yaml`. The seconds of a step are measured over a few steps first, and the run
gets as many steps as fit into the minutes. The alignment of names and regions before the first step, and the
validation, do not count. Times depend on what else the machine does, so give all runs the same company.

The table shows the validation of each run's last step, on the first `--photos` held-out photos, as many pairs
of composed objects, and as many composed scenes. A run that is in the folder is not made again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from saliency_r1.training.config import load_recipe
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.run import METRICS
from saliency_r1.training.segmenter.recipe import SegmenterRecipe
from saliency_r1.training.segmenter.train import train_segmenter

RECIPE = Path("recipes/nano/segmenter-fine.yaml")
WARM, TIMED = 4, 12
FIXED = (
    "start=null",
    "frozen_blocks=[11]",
    "early_size=0",
    "early_share=0",
    "learning_rate=2e-3",
    "transformer_rate=1e-3",
    "backbone_rate=3e-4",
    "average=0.99",
    "log_every=2",
)


@dataclass(frozen=True)
class Run:
    """What a run changes."""

    name: str
    backbone: str = "lite0"
    size: int = 256
    teacher: bool = False


RUNS = (
    Run("Lite0, 256 pixels"),
    Run("Lite2, 256 pixels", backbone="lite2"),
    Run("Lite0, 320 pixels", size=320),
    Run("Lite0, 256 pixels, teacher", teacher=True),
)


def recipe_of(run: Run, options: argparse.Namespace, folder: Path, steps: int, align: int) -> SegmenterRecipe:
    """The recipe of a run."""
    overrides = [
        *FIXED,
        f"output={folder}",
        f"cache={options.cache}-{run.size}",
        f"backbone={run.backbone}",
        f"image_size={run.size}",
        f"teacher={options.teacher if run.teacher else 'null'}",
        f"max_steps={steps}",
        f"align_steps={align}",
        f"validate_every={steps}",
        f"save_every={steps}",
        f"validation_photos={options.photos if steps > WARM + TIMED else 2}",
    ]
    return load_recipe(RECIPE, SegmenterRecipe, overrides)


def step_seconds(run: Run, options: argparse.Namespace, folder: Path) -> float:
    """Seconds of a step, from a few steps."""
    train_segmenter(recipe_of(run, options, folder, WARM + TIMED, 1), overwrite=True)
    logged = {step: value for step, name, value in read_metrics(folder / METRICS) if name == "seconds"}
    rmtree(folder)
    return (logged[WARM + TIMED] - logged[WARM]) / TIMED


def main() -> None:
    """Train each run that is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="of the steps of each run (default 6)")
    parser.add_argument("--out", type=Path, default=Path("runs/short"))
    parser.add_argument("--cache", type=Path, default=Path("cache/duts-tr"), help="packed photos, less -SIZE")
    parser.add_argument("--teacher", type=Path, default=Path("runs/teacher"))
    parser.add_argument("--photos", type=int, default=200, help="validated on (default 200)")
    parser.add_argument("--align", type=int, default=600, help="steps of the alignment (default 600)")
    options = parser.parse_args()
    if not any(options.teacher.glob("*/*.png")):
        parser.error(f"{options.teacher}: no masks of a teacher; make them with `saliency-r1 data masks`")
    rows = []
    for number, run in enumerate(RUNS):
        folder = options.out / str(number)
        if not (folder / "final").is_dir():
            started = time.perf_counter()
            seconds = step_seconds(run, options, options.out / "timing")
            steps = max(WARM + TIMED + 1, round(60 * options.minutes / seconds))
            print(f"{run.name}: {seconds:.2f} s a step, {steps} steps", flush=True)
            train_segmenter(recipe_of(run, options, folder, steps, options.align), overwrite=True)
            print(f"{run.name}: {(time.perf_counter() - started) / 60:.1f} minutes in all", flush=True)
        rows.append(row_of(run, folder))
    print("\n| run | steps | minutes | MAE | IoU | pairs: IoU | right object | scenes: IoU | right object |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def row_of(run: Run, folder: Path) -> Iterable[str]:
    """The cells of a run."""
    metrics = read_metrics(folder / METRICS)
    last = {name: value for step, name, value in metrics}
    steps = max(step for step, _, _ in metrics)
    found = (last[f"validation/{name}"] for name in ("mae", "iou", "composed_iou", "composed_right"))
    scenes = (last[f"validation/{name}"] for name in ("scenes_iou", "scenes_right"))
    shown = [f"{value:.{3 + (number == 0)}f}".lstrip("0") for number, value in enumerate((*found, *scenes))]
    return run.name, str(steps), f"{last['seconds'] / 60:.1f}", *shown


if __name__ == "__main__":
    main()
