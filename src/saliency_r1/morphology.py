"""Shapes in masks: connected parts, growing, and the depth below the edge, without a heavy library."""

from __future__ import annotations

import numpy as np


def label(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected parts of a mask; diagonal neighbours connect.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (H, W), 0 outside and from 1 in the order in which a reader meets the parts; and their count.
    """
    height, width = mask.shape
    line = width + 2  # more than a run can be long, so that rows stay apart
    padded = np.zeros((height, line), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded.ravel())
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)  # of the runs in all rows
    # A run touches those of the next row that begin before its end and end after its start.
    first = np.searchsorted(ends, starts + line)
    counts = np.maximum(np.searchsorted(starts, ends + line, side="right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(len(upper)) - np.repeat(counts.cumsum() - counts, counts) + first[upper]
    part = np.arange(len(starts))
    while True:
        least = part.copy()
        np.minimum.at(least, part[upper], part[lower])
        np.minimum.at(least, part[lower], part[upper])
        least = least[least]
        if np.array_equal(least, part):
            break
        part = least[part]
    _, number = np.unique(part, return_inverse=True)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(number + 1, ends - starts)
    return labels, int(number.max(initial=-1)) + 1


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """Grow a mask, bool (H, W), that many times by the pixels above, below, left and right of it."""
    mask = mask.copy()
    for _ in range(steps):
        before = mask.copy()
        mask[1:] |= before[:-1]
        mask[:-1] |= before[1:]
        mask[:, 1:] |= before[:, :-1]
        mask[:, :-1] |= before[:, 1:]
    return mask


def depth(mask: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to the nearest one outside, float32 (H, W); the picture's rim is outside.

    The time grows with the pixels and with the largest depth: for masks of a few hundred pixels a side.

    Args:
        mask: bool (H, W).
    """
    inside = np.pad(mask, 1)
    rows = np.arange(len(inside))[:, None]
    above = np.maximum.accumulate(np.where(inside, -1, rows), axis=0)
    below = np.minimum.accumulate(np.where(inside, len(inside), rows)[::-1], axis=0)[::-1]
    column = np.square(np.minimum(rows - above, below - rows)).astype(np.float32)  # within each column
    found = column.copy()
    step = 1
    while step**2 < found.max():
        np.minimum(found[:, step:], column[:, :-step] + step**2, out=found[:, step:])
        np.minimum(found[:, :-step], column[:, step:] + step**2, out=found[:, :-step])
        step += 1
    return np.sqrt(found[1:-1, 1:-1])
