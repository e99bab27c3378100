"""The order in which instances of a picture are listed."""

from __future__ import annotations

from collections.abc import Sequence

BAND = 0.2
"""How far a band reaches down, as a share of the picture's height."""


def reading_order(centres: Sequence[tuple[float, float]]) -> list[int]:
    """The order to read places in: bands from top to bottom, left to right within a band.

    A band begins with the highest place that is in none yet, and reaches a fifth of the picture below it.

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
