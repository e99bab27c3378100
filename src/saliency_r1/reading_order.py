"""The order in which instances of a picture are listed."""

from __future__ import annotations

from collections.abc import Sequence

BAND = 0.2
"""Height of a band, as a share of the picture's height."""


def reading_order(centres: Sequence[tuple[float, float]]) -> list[int]:
    """Return the reading order of places: bands from top to bottom, left to right within a band.

    A band begins at the highest place that is in no band yet, and reaches a fifth of the picture below it.

    Args:
        centres: row and column of each, 0 to 1.

    Returns:
        Indices of `centres`.
    """
    left = sorted(range(len(centres)), key=lambda index: (centres[index][0], index))
    order: list[int] = []
    while left:
        top = centres[left[0]][0]
        band = [index for index in left if centres[index][0] <= top + BAND]
        order += sorted(band, key=lambda index: (centres[index][1], index))
        left = left[len(band) :]
    return order
