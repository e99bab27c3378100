"""The boundary IoU against its definition, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from drawn_data import prediction, scene
from saliency_r1.evaluation.sod import score
from saliency_r1.masks import boundary_iou


def band(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Pixels of the mask with a pixel outside it, or outside the picture, no further than `pixels`."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        found[y, x] = any(
            not (0 <= v < height and 0 <= u < width) or not mask[v, u]
            for v in range(y - pixels, y + pixels + 1)
            for u in range(x - pixels, x + pixels + 1)
        )
    return found


def brute_force(first: np.ndarray, second: np.ndarray, distance: float) -> float:
    height, width = first.shape
    pixels = max(1, round(distance * (height**2 + width**2) ** 0.5))
    bands = band(first, pixels), band(second, pixels)
    either = (bands[0] | bands[1]).sum()
    return (bands[0] & bands[1]).sum() / either if either else 1.0


@pytest.mark.parametrize("distance", [0.001, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed: int, distance: float) -> None:
    _, picture = scene(seed)
    truth = np.asarray(picture) > 127
    found = np.asarray(prediction(picture, seed)) > 127
    expected = brute_force(found, truth, distance)
    assert 0 < expected < 1
    assert boundary_iou(found, truth, distance) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["full", "at the edge", "noise"])
def test_equals_the_definition_at_the_edge_of_the_picture(kind: str) -> None:
    first = np.zeros((30, 50), bool)
    if kind == "full":
        first[:] = True
    elif kind == "at the edge":
        first[10:, 25:] = True
    else:
        first = np.random.default_rng(0).random((30, 50)) > 0.3
    second = np.roll(first, 3, axis=1)
    second[:5] = False
    assert boundary_iou(first, second) == pytest.approx(brute_force(first, second, 0.02), abs=1e-12)


def test_sees_a_coarse_edge_that_iou_hardly_sees() -> None:
    y, x = np.mgrid[:200, :200]
    disc = np.hypot(y - 100, x - 100) < 80
    coarse = disc[2::5, 2::5].repeat(5, 0).repeat(5, 1)
    scores = score(coarse, disc)
    assert scores.iou > 0.95
    assert scores.boundary_iou < 0.75
    assert score(disc, disc).boundary_iou == 1


def test_empty_masks() -> None:
    nothing, something = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    something[5:10, 5:10] = True
    assert boundary_iou(nothing, nothing) == 1
    assert boundary_iou(nothing, something) == 0


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        boundary_iou(np.zeros((4, 5), bool), np.zeros((5, 4), bool))
