"""Runs of `saliency-r1 evaluate` for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from drawn_data import save, scene
from saliency_r1.cli import main
from saliency_r1.data.true_instances import encode


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def score(root: Path, predictions: Path, out: Path, *more: object, workers: int = 0) -> int:
    """Score predictions for the photos of `root/mine`."""
    given = ("--data", root / "mine", "--predictions", predictions, "--out", out, "--workers", workers)
    return run("evaluate", "sod", *given, *more)


def score_pairs(root: Path, *more: object, workers: int = 0) -> int:
    return score(root, root / "maps", root / "run", *more, workers=workers)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def draw_instances(root: Path, count: int = 6) -> Path:
    """A SIS set of colour masks and a perfect but for scores result file."""
    results = []
    for number in range(count):
        photo, mask = scene(number)
        values = (np.asarray(mask) > 127).astype(np.uint8)
        half = values.copy()
        half[:, values.shape[1] // 2 :] *= 2
        save(photo, root / "ILSO" / "images" / f"{number:04d}.jpg")
        save(Image.fromarray(half), root / "ILSO" / "instances" / f"{number:04d}.png")
        for value in np.unique(half[half > 0]):
            lengths = encode(half == value)
            segmentation = lengths | {"counts": lengths["counts"].decode()}
            results.append({"image_id": f"{number:04d}", "segmentation": segmentation, "score": 0.5})
    path = root / "mine.json"
    path.write_text(json.dumps(results))
    return path
