"""Shapes in masks are those that scipy finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from saliency_r1.morphology import depth, grown, label


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [(1, 1), (1, 30), (30, 1), (2, 2), *(tuple(random.integers(1, 40, 2)) for _ in range(40))]
    drawn = [random.random(size) < share for size in sizes for share in (0.1, 0.4, 0.9)]
    spiral = np.zeros((9, 9), bool)
    spiral[::4] = spiral[:, ::8] = True
    return [*drawn, np.zeros((5, 4), bool), np.ones((5, 4), bool), spiral]


@pytest.mark.parametrize("mask", masks())
def test_shapes_are_those_of_scipy(mask: np.ndarray) -> None:
    labels, count = label(mask)
    wanted, parts = ndimage.label(mask, np.ones((3, 3), int))
    assert count == parts
    assert np.array_equal(labels, wanted)
    assert np.array_equal(grown(mask, 3), ndimage.binary_dilation(mask, iterations=3))
    assert np.allclose(depth(mask), ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], atol=1e-4)


def test_growing_leaves_the_mask_that_is_given() -> None:
    mask = np.eye(4, dtype=bool)
    grown(mask, 1)
    assert np.array_equal(mask, np.eye(4, dtype=bool))
