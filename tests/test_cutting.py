"""Cut-outs of composites whose alpha and colours are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab

from saliency_r1 import cutting
from saliency_r1.cutting import cut_out

RED = np.array([200, 40, 30], np.float32)


def composite(
    size: int = 200, softness: float = 5.0, hairs: int = 0
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A red disc with a soft rim, and hairs if asked for, on a photo of grass: photo, alpha, sharp mask."""
    ground = Image.fromarray(data.astronaut()).rotate(90).resize((size, size))
    ground = Image.blend(ground, Image.new("RGB", ground.size, (40, 150, 60)), 0.7)
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    distance = np.hypot(rows, columns)
    alpha = np.clip((size * 0.3 - distance) / softness + 0.5, 0, 1)
    if hairs:
        angle = np.arctan2(rows, columns)
        strands = np.clip(1.5 * np.cos(hairs * angle) - 0.3, 0, 1) * (distance > 0.2 * size)
        alpha = np.maximum(alpha, strands * np.clip((size * 0.42 - distance) / 4, 0, 1))
    mixed = alpha[..., None] * RED + (1 - alpha[..., None]) * np.asarray(ground, np.float32)
    return Image.fromarray(np.rint(mixed).astype(np.uint8)), alpha.astype(np.float32), distance


def blurred(alpha: np.ndarray, cells: int = 50) -> np.ndarray:
    """A mask as a segmenter of few cells gives it."""
    small = Image.fromarray(alpha).resize((cells, cells), Image.Resampling.BOX)
    return np.asarray(small.resize(alpha.shape[::-1], Image.Resampling.BILINEAR)).clip(0, 1)


def colour_error(pixels: np.ndarray, alpha: np.ndarray) -> float:
    soft = (alpha > 0) & (alpha < 1) & (pixels[..., 3] > 0)
    found = rgb2lab(pixels[soft][None, :, :3] / 255)
    return float(deltaE_ciede2000(found, rgb2lab(np.broadcast_to(RED / 255, found.shape))).mean())


@pytest.mark.parametrize("work_pixels", [1_000_000, 10_000])
def test_soft_edges_get_the_objects_own_colours_and_a_nearer_alpha(
    work_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "WORK_PIXELS", work_pixels)  # as for a photo of many megapixels
    photo, alpha, _ = composite()
    mask = blurred(alpha)
    before = np.dstack([np.asarray(photo), np.rint(mask * 255).astype(np.uint8)])
    after = np.asarray(cut_out(photo, mask))
    assert colour_error(after, alpha) < 0.5 * colour_error(before, alpha)
    old, new = (np.abs(pixels[..., 3] / 255 - alpha).sum() for pixels in (before, after))
    assert new < 0.75 * old


def test_inside_and_outside_stay_as_they_are() -> None:
    photo, alpha, distance = composite()
    cut = np.asarray(cut_out(photo, blurred(alpha)))
    inside, outside = distance < 45, distance > 75
    assert (cut[inside][:, 3] == 255).all()
    assert np.array_equal(cut[inside][:, :3], np.asarray(photo)[inside])
    assert not cut[outside].any()


@pytest.mark.parametrize("matting", [False, True])
def test_an_empty_mask_cuts_out_nothing_and_a_full_one_all(matting: bool) -> None:
    photo = composite(60)[0]
    nothing, everything = (
        np.asarray(cut_out(photo, np.full((60, 60), value, np.float32), matting=matting)) for value in (0, 1)
    )
    assert not nothing.any()
    assert np.array_equal(everything[..., :3], np.asarray(photo))
    assert (everything[..., 3] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("matting", [False, True])
def test_the_smallest_photos_work(size: tuple[int, int], matting: bool) -> None:
    photo = Image.new("RGB", size, (9, 99, 199))
    for value in (0.3, 0.5, 0.9):
        cut = cut_out(photo, np.full(size[::-1], value, np.float32), matting=matting)
        assert (cut.size, cut.mode) == (size, "RGBA")


@pytest.mark.parametrize("pixels", [500_000, 20_000])
def test_matting_finds_hair_that_the_mask_does_not_resolve(
    pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "WORK_PIXELS", pixels)
    photo, alpha, _ = composite(hairs=24)
    mask = blurred(alpha, 25)
    plain, refined = (
        np.abs(np.asarray(cut_out(photo, mask, matting=matting))[..., 3] / 255 - alpha).sum()
        for matting in (False, True)
    )
    assert refined < 0.8 * plain
    assert colour_error(np.asarray(cut_out(photo, mask, matting=True)), alpha) < 6
