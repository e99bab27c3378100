"""Closed-form matting: solve for the alpha of hair and fur between certain object and background.

Levin, Lischinski and Weiss, "A closed-form solution to natural image matting" (TPAMI 2008): within a window
of 3x3 pixels the colours of object and background each lie on a line, so alpha is a linear function of the
colour there. The pixels of a band around the mask's edge are unknown; all others are fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saliency_r1.morphology import grown

EPSILON = 1e-6
"""Variance of the colour, in [0, 1], below which a window counts as flat."""

SURE = 0.05, 0.95
"""Probabilities beyond which a pixel is fixed as background or object."""

_STEPS, _TOLERANCE = 400, 1e-4
_PULL = 1e-3
"""Weight of the mask itself, for regions that no known pixel reaches."""

_WINDOW = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
_AROUND = np.array([(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)])
"""The pixels that share a window with one: the columns of its row of the matrix."""


def closed_form(photo: np.ndarray, mask: np.ndarray, band: int | None = None) -> np.ndarray:
    """Solve for alpha around a mask's edge.

    Time and memory grow with the pixels of the band: half a second for 50,000 of them.

    Args:
        photo: uint8 (H, W, 3).
        mask: probabilities, float32 (H, W) in [0, 1].
        band: pixels on either side of the edge that are unknown, in addition to uncertain ones; default 1 %
            of the longer side.

    Returns:
        Alpha, float32 (H, W) in [0, 1].
    """
    band = max(2, round(0.01 * max(mask.shape))) if band is None else band
    solid = mask >= 0.5
    unknown = (grown(solid, band) & grown(~solid, band)) | ((mask > SURE[0]) & (mask < SURE[1]))
    known = solid.astype(np.float32)
    if not unknown.any() or not solid.any() or min(mask.shape) < 3:
        return known
    entries, columns, numbers = _laplacian(photo.astype(np.float64) / 255, unknown)
    free = unknown.ravel()[numbers]
    entries, columns = entries[free], columns[free]
    middle = len(_AROUND) // 2
    entries[:, middle] += _PULL
    start = mask.ravel()[numbers[free]].astype(np.float64)
    values = np.where(free, 0.0, known.ravel()[numbers])
    right = _PULL * start - np.einsum("nk,nk->n", entries, values[columns])

    def times(unknowns: np.ndarray) -> np.ndarray:
        values[:] = 0
        values[free] = unknowns
        found: np.ndarray = np.einsum("nk,nk->n", entries, values[columns])
        return found

    alpha = known.ravel()
    alpha[numbers[free]] = _solved(times, right, start, entries[:, middle]).clip(0, 1)
    return alpha.reshape(mask.shape)


def _laplacian(photo: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matting Laplacian of all windows with an unknown pixel, over the pixels of these windows.

    Returns:
        The entries of each row, float64 (N, 25), one for each place of `_AROUND`; the row of the pixel
        that is there; and for each row the pixel's number in the photo.
    """
    width = unknown.shape[1]
    centres = _beside(unknown)
    centres[[0, -1]] = centres[:, [0, -1]] = False
    rows, columns = np.nonzero(centres)
    pixels = (rows[:, None] + _WINDOW[:, 0]) * width + columns[:, None] + _WINDOW[:, 1]
    colours = photo.reshape(-1, 3)[pixels]
    centred = colours - colours.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / 9 + EPSILON / 9 * np.eye(3)
    weights = np.einsum("nki,nij,nlj->nkl", centred, np.linalg.inv(covariance), centred, optimize=True)
    entries = np.eye(9) - (1 + weights) / 9
    numbers, own = np.unique(pixels, return_inverse=True)
    away = _WINDOW[None] - _WINDOW[:, None] + 2  # of the second pixel of a pair from the first
    place = away[..., 0] * 5 + away[..., 1]
    index = own.reshape(-1, 9, 1) * len(_AROUND) + place
    size = len(numbers) * len(_AROUND)
    table = np.bincount(index.ravel(), entries.ravel(), size).reshape(-1, len(_AROUND))
    there = numbers[:, None] + _AROUND[:, 0] * width + _AROUND[:, 1]
    # What is in no window has the entry 0, so any row will do.
    return table, np.searchsorted(numbers, there).clip(max=len(numbers) - 1), numbers


def _beside(mask: np.ndarray) -> np.ndarray:
    """Return the mask with all eight neighbours of its pixels."""
    padded = np.pad(mask, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    found: np.ndarray = tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]
    return found


def _solved(
    times: Callable[[np.ndarray], np.ndarray], right: np.ndarray, start: np.ndarray, diagonal: np.ndarray
) -> np.ndarray:
    """Solve a positive definite system by conjugate gradients, preconditioned with the diagonal."""
    found = start.copy()
    residual = right - times(found)
    enough = _TOLERANCE * np.linalg.norm(right)
    direction, before = np.zeros_like(found), 1.0
    for step in range(_STEPS):
        if np.linalg.norm(residual) <= enough:
            break
        weighted = residual / diagonal
        now = residual @ weighted
        direction = weighted + (now / before if step else 0.0) * direction
        moved = times(direction)
        length = now / (direction @ moved)
        found += length * direction
        residual -= length * moved
        before = now
    return found
