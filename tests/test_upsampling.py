"""Masks at the photo's size follow the photo's edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1 import upsampling
from saliency_r1.segmenters.torch_upsampling import upsample as torch_upsample
from saliency_r1.upsampling import (
    apply_functions,
    averaged,
    guide_of,
    linear_functions,
    resized,
    sigmoid,
    upsample,
)


def scene(height: int = 240, width: int = 320) -> tuple[Image.Image, np.ndarray]:
    """A bright blob with a jagged edge on darker noise, and where it is."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = np.arctan2(rows - height / 2, columns - width / 2)
    radius = height * (0.3 + 0.06 * np.sin(9 * angle))
    inside = np.hypot(rows - height / 2, columns - width / 2) < radius
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    colour = np.where(inside[..., None], (210, 160, 60), (60, 90, 120)) + noise
    return Image.fromarray(colour.clip(0, 255).astype(np.uint8)), inside


def coarse(inside: np.ndarray, cells: int = 20) -> np.ndarray:
    """Logits (1, cells, cells) of few cells, as a segmenter gives them."""
    small = Image.fromarray(inside.astype(np.float32)).resize((cells, cells), Image.Resampling.BOX)
    share = np.array(small).clip(0.02, 0.98)
    return np.log(share / (1 - share))[None]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_the_edge_is_nearer_to_the_photos_than_by_interpolation() -> None:
    photo, inside = scene()
    logits = coarse(inside)
    plain = resized(logits, inside.shape)[0] >= 0
    followed = upsample(logits, guide_of(photo), inside.shape)
    assert followed.shape == (1, *inside.shape)
    assert followed.dtype == np.float32
    assert float(followed.min()) >= 0
    assert float(followed.max()) <= 1
    assert iou(followed[0] >= 0.5, inside) > iou(plain, inside) + 0.02


def test_several_masks_are_as_each_by_itself() -> None:
    photo, inside = scene()
    fine = coarse(inside, 10).repeat(2, axis=1).repeat(2, axis=2)
    logits = np.concatenate([coarse(inside), coarse(~inside), fine])
    guide = guide_of(photo)
    together = upsample(logits, guide, inside.shape)
    for one, alone in zip(logits, together, strict=True):
        np.testing.assert_allclose(upsample(one[None], guide, inside.shape)[0], alone, atol=1e-4)
    assert upsample(logits[:0], guide, inside.shape).shape == (0, *inside.shape)


def test_a_photo_without_edges_leaves_the_mask_as_it_is() -> None:
    _, inside = scene()
    logits = coarse(inside)
    grey = np.full((240, 320, 3), 90, np.uint8)
    smooth = sigmoid(resized(logits, inside.shape))
    assert np.abs(upsample(logits, grey, inside.shape) - smooth).mean() < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_the_smallest_photos_work(size: tuple[int, int]) -> None:
    guide = guide_of(Image.new("RGB", size, (5, 90, 200)))
    logits = np.full((2, 16, 16), [[[3.0]], [[0.0]]], np.float32)
    found = upsample(logits, guide, size[::-1])
    assert found.shape == (2, *size[::-1])
    assert (found[0] > 0.94).all()
    assert np.allclose(found[1], 0.5, atol=0.01)


def test_the_guide_of_a_large_photo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "GUIDE_PIXELS", 10_000)
    photo, inside = scene()
    guide = guide_of(photo)
    assert guide.dtype == np.uint8
    assert 9_000 < guide.shape[0] * guide.shape[1] <= 10_300
    assert guide.shape[1] / guide.shape[0] == pytest.approx(320 / 240, abs=0.03)
    found = upsample(coarse(inside), guide, inside.shape)
    assert iou(found[0] >= 0.5, inside) > 0.9


def test_a_flat_window_takes_the_mean_and_an_edge_the_mask() -> None:
    picture = np.zeros((3, 40, 40), np.float32)
    picture[..., 20:] = 1
    mask = np.zeros((1, 40, 40), np.float32)
    mask[..., 22:] = 1  # two pixels beside the edge
    followed = apply_functions(linear_functions(mask, picture, radius=0.2, epsilon=1e-4), picture)
    assert followed[0, 20, 21] - followed[0, 20, 18] > 0.5


@pytest.mark.parametrize("size", [(9, 12), (300, 450), (7, 600), (1, 1)])
@pytest.mark.parametrize("shape", [(9, 12), (30, 20), (210, 300)])
def test_other_sizes_are_those_of_torch(shape: tuple[int, int], size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((2, *shape), np.float32)
    wanted = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(resized(maps, size), wanted, atol=1e-4)
    smaller = tuple(min(pair) for pair in zip(shape, size, strict=True))
    wanted = F.adaptive_avg_pool2d(torch.from_numpy(maps), smaller).numpy()
    np.testing.assert_allclose(averaged(maps, smaller), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(240, 320), (900, 1300), (37, 90), (1, 5)])
def test_torch_finds_the_same_masks(size: tuple[int, int]) -> None:
    photo, inside = scene()
    photo = photo.resize(size[::-1])
    logits = np.concatenate([coarse(inside), 3 * coarse(~inside), coarse(inside, 160)[:, :20, :20]])
    wanted = torch_upsample(torch.from_numpy(logits)[:, None], torch.from_numpy(guide_of(photo)), size)
    np.testing.assert_allclose(upsample(logits, guide_of(photo), size), wanted[:, 0].numpy(), atol=1e-3)


def test_masks_of_a_smaller_size_are_near_those_of_the_photos_made_smaller() -> None:
    photo, inside = scene()
    logits, guide = torch.from_numpy(coarse(inside))[:, None], torch.from_numpy(guide_of(photo))
    size = inside.shape[0] // 2, inside.shape[1] // 2
    wanted = F.interpolate(torch_upsample(logits, guide, inside.shape), size, mode="area")
    found = torch_upsample(logits, guide, size)
    assert found.shape == (1, 1, *size)
    assert float((found - wanted).abs().mean()) < 0.02
