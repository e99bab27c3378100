"""Masks at the photo's size follow the photo's edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_r1 import upsampling
from saliency_r1.upsampling import apply_functions, guide_of, linear_functions, upsample


def scene(height: int = 240, width: int = 320) -> tuple[Image.Image, np.ndarray]:
    """A bright blob with a jagged edge on darker noise, and where it is."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = np.arctan2(rows - height / 2, columns - width / 2)
    radius = height * (0.3 + 0.06 * np.sin(9 * angle))
    inside = np.hypot(rows - height / 2, columns - width / 2) < radius
    noise = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    colour = np.where(inside[..., None], (210, 160, 60), (60, 90, 120)) + noise
    return Image.fromarray(colour.clip(0, 255).astype(np.uint8)), inside


def coarse(inside: np.ndarray, cells: int = 20) -> torch.Tensor:
    """Logits of few cells, as a segmenter gives them."""
    small = Image.fromarray(inside.astype(np.float32)).resize((cells, cells), Image.Resampling.BOX)
    share = torch.from_numpy(np.array(small)).clamp(0.02, 0.98)
    return torch.logit(share)[None, None]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_the_edge_is_nearer_to_the_photos_than_by_interpolation() -> None:
    photo, inside = scene()
    logits = coarse(inside)
    plain = torch.nn.functional.interpolate(logits, size=inside.shape, mode="bilinear")[0, 0].numpy() >= 0
    guide = torch.from_numpy(guide_of(photo))
    followed = upsample(logits, guide, inside.shape)
    assert followed.shape == (1, 1, *inside.shape)
    assert float(followed.min()) >= 0
    assert float(followed.max()) <= 1
    assert iou(followed[0, 0].numpy() >= 0.5, inside) > iou(plain, inside) + 0.02


def test_several_masks_are_as_each_by_itself() -> None:
    photo, inside = scene()
    fine = torch.nn.functional.interpolate(coarse(inside, 10), scale_factor=2.0)
    logits = torch.cat([coarse(inside), coarse(~inside), fine])
    guide = torch.from_numpy(guide_of(photo))
    together = upsample(logits, guide, inside.shape)
    for one, alone in zip(logits, together, strict=True):
        assert torch.allclose(upsample(one[None], guide, inside.shape)[0], alone, atol=1e-4)


def test_a_photo_without_edges_leaves_the_mask_as_it_is() -> None:
    _, inside = scene()
    logits = coarse(inside)
    grey = torch.full((240, 320, 3), 90, dtype=torch.uint8)
    smooth = torch.nn.functional.interpolate(logits, size=inside.shape, mode="bilinear").sigmoid()
    assert (upsample(logits, grey, inside.shape) - smooth).abs().mean() < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_the_smallest_photos_work(size: tuple[int, int]) -> None:
    guide = torch.from_numpy(guide_of(Image.new("RGB", size, (5, 90, 200))))
    logits = torch.tensor([3.0, 0.0])[:, None, None, None].expand(2, 1, 16, 16)
    found = upsample(logits, guide, size[::-1])
    assert found.shape == (2, 1, *size[::-1])
    assert (found[0] > 0.94).all()
    assert torch.allclose(found[1], torch.tensor(0.5), atol=0.01)


def test_the_guide_of_a_large_photo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "GUIDE_PIXELS", 10_000)
    photo, inside = scene()
    guide = guide_of(photo)
    assert guide.dtype == np.uint8
    assert 9_000 < guide.shape[0] * guide.shape[1] <= 10_300
    assert guide.shape[1] / guide.shape[0] == pytest.approx(320 / 240, abs=0.03)
    found = upsample(coarse(inside), torch.from_numpy(guide), inside.shape)
    assert iou(found[0, 0].numpy() >= 0.5, inside) > 0.9


def test_a_flat_window_takes_the_mean_and_an_edge_the_mask() -> None:
    picture = torch.zeros(1, 3, 40, 40)
    picture[..., 20:] = 1
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 22:] = 1  # two pixels beside the edge
    followed = apply_functions(linear_functions(mask, picture, radius=0.2, epsilon=1e-4), picture)
    assert followed[0, 0, 20, 21] - followed[0, 0, 20, 18] > 0.5
