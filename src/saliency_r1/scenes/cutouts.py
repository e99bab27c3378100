"""Cut an object out of a photo in its true shape, and put it into another without a visible seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from saliency_r1.scenes.composing import box_of, fill

SIDES = ("left", "right", "top", "bottom")
_PLACES = 20


@dataclass(frozen=True)
class CutOut:
    """A cut-out object.

    Attributes:
        colour: float32 (h, w, 3), 0 to 255.
        alpha: float32 (h, w), 0 to 1.
        cut: those of `SIDES` where the photo ended before the object did.
    """

    colour: np.ndarray
    alpha: np.ndarray
    cut: frozenset[str]


def cut_out(image: np.ndarray, mask: np.ndarray, aspect: float, cut: frozenset[str], area: float) -> CutOut:
    """Cut the object out of a photo that was resized to a square, and restore its true shape.

    Args:
        image: uint8 (S, S, 3).
        mask: uint8 (S, S), 0 to 255, not empty at 128.
        aspect: width over height of the photo before.
        cut: the sides of the photo that cut the object.
        area: the share of a picture of S by S that it should cover; less if it would have to be enlarged by
            more than a quarter, or be longer than the picture.
    """
    size = mask.shape[0]
    solid = mask > 127
    left, top, right, bottom = box_of(solid)
    # Room for the soft edge; none where the photo cuts the object, so that it reaches that side.
    room = {side: -2 if side in cut else 3 for side in SIDES}
    left, right = max(0, left - room["left"]), min(size, right + room["right"])
    top, bottom = max(0, top - room["top"]), min(size, bottom + room["bottom"])
    wide, tall = (right - left) * math.sqrt(aspect), (bottom - top) / math.sqrt(aspect)
    scale = min(math.sqrt(area * size**2 / solid.sum()), 1.25, 0.92 * size / max(wide, tall))
    target = max(4, round(wide * scale)), max(4, round(tall * scale))
    box = (left, top, right, bottom)
    bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
    colour = Image.fromarray(image).resize(target, bicubic, box=box, reducing_gap=2.0)
    shape = Image.fromarray(mask).resize(target, bilinear, box=box)
    soft = np.asarray(shape.filter(ImageFilter.GaussianBlur(0.9)), np.float32) / 255
    # The masks are a little too wide: move the edge inward by about half a pixel.
    alpha = np.clip((soft - 0.42) / 0.5, 0, 1)
    return CutOut(_unfringed(np.asarray(colour), alpha), alpha, cut)


def turned(cut: CutOut) -> CutOut:
    """Mirror it left to right."""
    swap = {"left": "right", "right": "left"}
    sides = frozenset(swap.get(side, side) for side in cut.cut)
    return CutOut(cut.colour[:, ::-1], cut.alpha[:, ::-1], sides)


def _unfringed(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return float32 (h, w, 3), at the edge with colours from further inside, without the old background."""
    inner = (alpha > 0.98).astype(np.uint8)
    spread = ImageFilter.GaussianBlur(2)
    near = np.asarray(Image.fromarray(pixels * inner[..., None]).filter(spread), np.float32)
    weight = np.asarray(Image.fromarray(inner * np.uint8(255)).filter(spread), np.float32)[..., None] / 255
    edge = (alpha < 0.98)[..., None] & (weight > 0.08)
    return np.where(edge, np.minimum(near / np.maximum(weight, 0.08), 255), pixels).astype(np.float32)


def place(
    cut: CutOut,
    others: Sequence[np.ndarray],
    size: int,
    rng: np.random.Generator,
    overlap: float = 0.0,
    central: bool = False,
) -> tuple[int, int]:
    """Find a place for an object with little overlap with the others.

    An object that its photo cut at a side goes to that side; otherwise low places are preferred.

    Args:
        cut: the object.
        others: solid masks of the other objects, bool (size, size).
        size: size of the picture.
        rng: draws up to 20 places; the first that fits is used, otherwise the best.
        overlap: the share of an object that may be covered.
        central: whether the place is near the middle.

    Returns:
        The left and top of the place.
    """
    height, width = cut.alpha.shape
    solid = cut.alpha > 0.5
    best, found = np.inf, (0, 0)
    for _ in range(_PLACES):
        x = int(rng.integers(size - width + 1))
        foot = size * (0.35 + 0.65 * math.sqrt(rng.random()))
        y = min(max(0, round(foot) - height), size - height)
        if central:
            x, y = (round((size - side) * rng.uniform(0.35, 0.65)) for side in (width, height))
        x = 0 if "left" in cut.cut else size - width if "right" in cut.cut else x
        y = 0 if "top" in cut.cut else size - height if "bottom" in cut.cut else y
        share = 0.0
        for other in others:
            both = int((other[y : y + height, x : x + width] & solid).sum())
            share = max(share, both / max(1, min(int(other.sum()), int(solid.sum()))))
        if share < best:
            best, found = share, (x, y)
        if share <= overlap:
            break
    return found


def blend(ground: np.ndarray, cut: CutOut, x: int, y: int, matched: float) -> np.ndarray:
    """Paste a cut-out onto the ground, in place.

    Args:
        ground: float32 (S, S, 3), 0 to 255; changed.
        cut: the object.
        x, y: left and top of the cut-out.
        matched: how far its brightness, contrast and tint are moved to those of the place, 0 to 1.

    Returns:
        The solid mask of the object, bool (S, S).
    """
    height, width = cut.alpha.shape
    around = ground[max(0, y - 12) : y + height + 12, max(0, x - 12) : x + width + 12].reshape(-1, 3)
    inside = cut.colour[cut.alpha >= 0.5 * cut.alpha.max()]
    own, there = inside.mean(0), around.mean(0)
    light = np.clip(0.35 * matched * (there.mean() - own.mean()), -30, 30)
    tint = 0.2 * matched * (there - there.mean())
    spread = [float(pixels.mean(1).std()) + 8 for pixels in (around, inside)]
    gain = np.clip((spread[0] / spread[1]) ** (0.3 * matched), 0.8, 1.15)
    pixels = np.clip((cut.colour - own) * gain + own + light + tint, 0, 255)
    patch = ground[y : y + height, x : x + width]
    patch += (pixels - patch) * cut.alpha[..., None]
    return solid_at(cut, x, y, ground.shape[0])


def solid_at(cut: CutOut, x: int, y: int, size: int) -> np.ndarray:
    """Return the object's mask in a picture, bool (size, size), at its left and top."""
    solid = np.zeros((size, size), bool)
    solid[y : y + cut.alpha.shape[0], x : x + cut.alpha.shape[1]] = cut.alpha > 0.5
    return solid


def fill_grained(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole smoothly, then add fine grain from elsewhere in the picture, so that it is not blurred.

    The grain has the same strength as around the hole: a sky stays smooth.

    Args:
        image: uint8 (H, W, 3).
        hole: bool (H, W), not empty.
    """
    left, top, right, bottom = box_of(hole)
    window = np.s_[max(0, top - 24) : bottom + 24, max(0, left - 24) : right + 24]
    inside = hole[window]
    smooth = fill(image[window], inside).astype(np.float32)
    grain = image.astype(np.float32) - np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(5)))
    around = np.abs(grain[window][~inside]).mean() if not inside.all() else 0.0
    taken, known = np.zeros_like(smooth), np.zeros_like(inside)
    half = hole.shape[0] // 2
    for axis, shift in ((1, 0), (0, 0), (1, half), (0, half), (1, half // 2), (0, half // 2)):
        moved = [np.roll(each, shift, axis) if shift else np.flip(each, axis) for each in (~hole, grain)]
        seen = moved[0][window] & inside & ~known
        taken[seen] = moved[1][window][seen]
        known |= seen
        if known[inside].all():
            break
    out = image.copy()
    out[window] = np.clip(smooth + np.clip(taken, -2.5 * around, 2.5 * around), 0, 255)
    return out


def square_box(aspect: float, size: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return a box in the resized photo that is a square in its true shape."""
    width = max(8, round(size * share * min(1.0, 1 / aspect)))
    height = max(8, round(size * share * min(1.0, aspect)))
    x, y = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
    return x, y, x + width, y + height
