"""Compose photos of real foregrounds: cut, fill and paste."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole smoothly from its surroundings by averaging down a pyramid and reading it back up.

    Args:
        image: uint8 (H, W, 3).
        hole: bool (H, W), what to fill.

    Returns:
        uint8 (H, W, 3), unchanged outside the hole; mid grey if nothing else is left.
    """
    height, width = hole.shape
    known = (~hole).astype(np.float32)[..., None]
    value = image.astype(np.float32) * known
    filled = np.full((1, 1, 3), 127.0, np.float32)
    levels = []
    while True:
        levels.append((value, known))
        if max(value.shape[:2]) == 1:
            break
        value, known = _halve(value), _halve(known)
    for value, known in reversed(levels):
        size = (value.shape[1], value.shape[0])
        above = np.stack(
            [
                np.asarray(Image.fromarray(filled[..., channel]).resize(size, Image.Resampling.BILINEAR))
                for channel in range(3)
            ],
            axis=-1,
        )
        share = np.clip(known, 0.0, 1.0)
        filled = np.where(known > 0, value / np.maximum(known, 1e-6) * share + above * (1 - share), above)
    return np.where(hole[..., None], filled[:height, :width].round(), image).astype(np.uint8)


def _halve(x: np.ndarray) -> np.ndarray:
    """Return the means of 2x2 cells; an odd edge is repeated."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom (exclusive) of a bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def paste(
    scene: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray,
    longest: int,
    rng: np.random.Generator,
    keep_off: np.ndarray,
    tries: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a foreground into a scene, where it hides as little as possible of `keep_off`.

    Args:
        scene: uint8 (H, W, 3).
        image: uint8 (h, w, 3), the photo of the foreground.
        mask: uint8 (h, w), its mask, 0 to 255, not empty at 128.
        longest: pixels of the foreground's longest side in the scene.
        rng: chooses the place, the best of `tries`.
        keep_off: bool (H, W), objects already there.

    Returns:
        The new scene and the pasted mask, bool (H, W).
    """
    left, top, right, bottom = box_of(mask > 127)
    scale = longest / max(right - left, bottom - top)
    size = (max(2, round((right - left) * scale)), max(2, round((bottom - top) * scale)))
    height, width = scene.shape[:2]
    size = (min(size[0], width), min(size[1], height))
    cut = (left, top, right, bottom)
    colour = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR, box=cut)
    alpha = Image.fromarray(np.ascontiguousarray(mask)).resize(size, Image.Resampling.BILINEAR, box=cut)
    alpha = alpha.filter(ImageFilter.GaussianBlur(0.7))
    solid = np.asarray(alpha) > 127
    best, place = np.inf, (0, 0)
    for _ in range(tries):
        x, y = int(rng.integers(width - size[0] + 1)), int(rng.integers(height - size[1] + 1))
        hidden = int((keep_off[y : y + size[1], x : x + size[0]] & solid).sum())
        if hidden < best:
            best, place = hidden, (x, y)
        if hidden == 0:
            break
    canvas = Image.fromarray(scene)
    canvas.paste(colour, place, alpha)
    pasted = np.zeros((height, width), bool)
    pasted[place[1] : place[1] + size[1], place[0] : place[0] + size[0]] = solid
    return np.asarray(canvas), pasted
