"""Resize masks to a photo's size with edges that follow the photo: a guided filter at bounded resolution.

In each window of the photo the mask is modelled as a linear function of the colour (He, Sun and Tang, "Guided
image filtering", TPAMI 2013). As in their "Fast guided filter" (arXiv 1505.00996) the functions are fitted on
a small grid and applied on a finer one, so the time does not grow with the photo.

`saliency_r1.segmenters.torch_upsampling` does the same with torch, where masks stay on a device.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

GUIDE_PIXELS = 1_000_000
"""Maximum pixels of the picture from which edges are taken."""

GRID_SIDE = 160
"""Maximum longer side of the grid on which the functions are fitted."""

# Chosen with benchmarks/upsampling.py --choosing.
RADIUS = 0.015
"""Half the window's side, as a share of the grid's longer side."""

EPSILON = 3e-4
"""Variance of the colour, in [0, 1], below which a window counts as flat."""

CONTRAST = 1.5
"""Factor by which the masks are made steeper, because a mean over a window makes them flatter."""

PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""The six different entries of the covariance of three colours."""

_DENSE_SIDE = 200


def guide_of(photo: Image.Image) -> np.ndarray:
    """Reduce a photo to the guide of `upsample`: uint8 (h, w, 3), at most `GUIDE_PIXELS`."""
    scale = min(1.0, (GUIDE_PIXELS / (photo.width * photo.height)) ** 0.5)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    # The BOX reduction first limits the time for a very large photo.
    return np.array(photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))


def as_picture(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels, uint8 (H, W, 3), to float32 (3, H, W) in [0, 1]."""
    return np.multiply(pixels.transpose(2, 0, 1), np.float32(1 / 255), dtype=np.float32, order="C")


def upsample(logits: np.ndarray, guide: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize masks to a photo's size along the edges of its guide.

    Args:
        logits: float32 (N, h, w), of any resolution.
        guide: uint8 (H, W, 3), a result of `guide_of`.
        size: height and width of the photo.

    Returns:
        Probabilities, float32 (N, *size) in [0, 1].
    """
    picture = as_picture(guide)
    functions = linear_functions(sigmoid(logits), picture, RADIUS, EPSILON, contrast=CONTRAST)
    return resized(apply_functions(functions, picture), size)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, float32 of any shape."""
    return 1 / (1 + np.exp(-logits.clip(-80, 80)))


def apply_functions(functions: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Apply linear functions of the colour, of any resolution.

    Args:
        functions: float32 (N, 4, h, w), three slopes and an offset.
        picture: float32 (3, H, W) in [0, 1].

    Returns:
        float32 (N, H, W), cut to [0, 1].
    """
    found = []
    for each in functions:  # one after the other: all at once would be four pictures for each mask
        *slopes, mask = resized(each, picture.shape[1:])
        for slope, channel in zip(slopes, picture, strict=True):
            slope *= channel
            mask += slope
        found.append(mask.clip(0, 1, out=mask))
    return np.stack(found) if found else np.zeros((0, *picture.shape[1:]), np.float32)


def linear_functions(
    masks: np.ndarray,
    picture: np.ndarray,
    radius: float,
    epsilon: float,
    *,
    contrast: float = 1.0,
    side: int = GRID_SIDE,
) -> np.ndarray:
    """Fit the masks around each place as functions of the colour, on a small grid.

    Args:
        masks: float32 (N, h, w) in [0, 1].
        picture: float32 (3, H, W) in [0, 1].
        radius: half the window's side, as a share of the grid's longer side.
        epsilon: variance of the colour below which a window counts as flat.
        contrast: factor by which the masks are made steeper around one half.
        side: maximum longer side of the grid.

    Returns:
        Three slopes and an offset, float32 (N, 4, h', w'): mask = sum(slope * colour) + offset.
    """
    scale = min(1.0, side / max(picture.shape[1:]))
    grid = tuple(max(1, round(length * scale)) for length in picture.shape[1:])
    colour = averaged(picture, grid) if scale < 1 else picture
    masks = resized(masks, grid)
    reach = max(1, round(radius * max(grid)))
    mean, mask_mean = _mean(colour, reach), _mean(masks, reach)
    # The colours' covariance, and its inverse by cofactors.
    squares = _mean(np.stack([colour[i] * colour[j] for i, j in PAIRS]), reach)
    rr, rg, rb, gg, gb, bb = (
        square - mean[i] * mean[j] + (epsilon if i == j else 0)
        for square, (i, j) in zip(squares, PAIRS, strict=True)
    )
    cofactors = np.array(
        [
            [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg],
            [rb * gb - rg * bb, rr * bb - rb * rb, rg * rb - rr * gb],
            [rg * gb - rb * gg, rg * rb - rr * gb, rr * gg - rg * rg],
        ]
    )
    determinant = rr * cofactors[0, 0] + rg * cofactors[0, 1] + rb * cofactors[0, 2]
    shared = _mean(colour * masks[:, None], reach) - mean * mask_mean[:, None]
    slopes = np.einsum("ijhw,njhw->nihw", cofactors, shared) / determinant
    offsets = mask_mean - (slopes * mean).sum(1)
    functions = np.multiply(contrast, _mean(np.concatenate([slopes, offsets[:, None]], axis=1), reach))
    functions[:, 3] -= (contrast - 1) / 2
    return functions


def resized(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize maps, float32 (…, h, w), bilinear and without smoothing where they become smaller."""
    shape = maps.shape[-2:]
    if shape == tuple(size):
        return maps.copy()
    if max(shape) > _DENSE_SIDE and size[0] >= shape[0] and size[1] >= shape[1]:
        # Where maps become larger, Pillow's filter is the same.
        flat = [
            np.asarray(Image.fromarray(each).resize((size[1], size[0]), Image.Resampling.BILINEAR))
            for each in maps.reshape(-1, *shape)
        ]
        return (
            np.stack(flat).reshape(*maps.shape[:-2], *size) if flat else maps.reshape(*maps.shape[:-2], *size)
        )
    down, across = (_weights(*lengths) for lengths in zip(shape, size, strict=True))
    return down @ (maps @ across.T)


def averaged(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Reduce maps, float32 (…, h, w): each place is the mean of all that it touches."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        maps = np.moveaxis(maps, axis, 0)
        whole = maps.shape[0]
        starts = np.arange(length) * whole // length
        ends = -(-np.arange(1, length + 1) * whole // length)
        cuts = np.stack([starts, ends], axis=1).ravel()[:-1]  # the last place ends with the map
        sums = np.add.reduceat(maps, cuts, axis=0)[::2]
        counts = (ends - starts).astype(np.float32)
        maps = np.moveaxis(sums / counts.reshape(-1, *(1,) * (maps.ndim - 1)), 0, axis)
    return np.ascontiguousarray(maps)


def _weights(source: int, target: int) -> np.ndarray:
    """Return the weight of each place of a line in each of another line, float32 (target, source)."""
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0, source - 1)
    first = np.minimum(place.astype(int), source - 1)
    second = np.minimum(first + 1, source - 1)
    weights = np.zeros((target, source), np.float32)
    line = np.arange(target)
    weights[line, second] = place - first
    weights[line, first] += 1 - (place - first)
    return weights


def _mean(maps: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean over the part of the square window around each place that is inside the map."""
    for axis in (-2, -1):
        length = maps.shape[axis]
        line = np.arange(length)
        window = (np.abs(line[:, None] - line) <= reach).astype(np.float32)
        window /= window.sum(1, keepdims=True)
        maps = window @ maps if axis == -2 else maps @ window.T
    return maps
