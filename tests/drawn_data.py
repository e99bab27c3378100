"""Drawn data sets for tests: photos of discs on a ground, their masks, and predictions of any quality."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

SIZE = (96, 72)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[Image.Image, Image.Image]:
    """A photo (RGB) and its mask (L) of one or two coloured discs on a textured ground."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    ground = rng.integers(60, 120, 3) + 20 * np.sin(x / rng.uniform(4, 9) + seed)[..., None]
    photo = ground + rng.normal(0, 4, (height, width, 3))
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(0.25, 0.75, 2) * (height, width)
        disc = np.hypot(y - centre[0], x - centre[1]) < rng.uniform(0.12, 0.25) * height
        photo[disc] = rng.integers(150, 255, 3)
        mask |= disc
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8)), Image.fromarray(mask).convert("L")


def prediction(mask: Image.Image, seed: int) -> Image.Image:
    """A soft, displaced, noisy map of the mask."""
    rng = np.random.default_rng(seed)
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(2 + seed % 3)), float)
    soft = np.roll(soft, rng.integers(-6, 7, 2), (0, 1)) * rng.uniform(0.6, 1) + rng.normal(0, 5, soft.shape)
    return Image.fromarray(soft.clip(0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    """Save, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def draw_pairs(
    root: Path,
    count: int,
    *,
    folders: Sequence[str] = ("images", "masks"),
    predictions: Path | None = None,
    size: tuple[int, int] = SIZE,
) -> list[str]:
    """A SOD data set, and predictions of it; the names."""
    names = [f"{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        photo, mask = scene(number, size)
        save(photo, root / folders[0] / f"{name}.jpg")
        save(mask, root / folders[1] / f"{name}.png")
        if predictions is not None:
            save(prediction(mask, number), predictions / f"{name}.png")
    return names


def draw_groups(images: Path, masks: Path, groups: dict[str, int], predictions: Path | None = None) -> None:
    """A CoSOD data set in the two folders, its file names recurring in each group."""
    for index, (group, count) in enumerate(groups.items()):
        for number in range(count):
            photo, mask = scene(100 * index + number)
            save(photo, images / group / f"{number:02d}.jpg")
            save(mask, masks / group / f"{number:02d}.png")
            if predictions is not None:
                save(prediction(mask, number), predictions / group / f"{number:02d}.png")


def real_data(name: str) -> Path:
    """A folder of the real data; the test is skipped where it is not there."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("SALIENCY_R1_DATA", beside)) / name
    if not root.is_dir():
        pytest.skip(f"needs {name} in {root.parent}: set SALIENCY_R1_DATA to the folder that holds it")
    return root
