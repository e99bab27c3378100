"""Colours of pictures with a profile: what a viewer that manages colours shows."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from profiled import SRGB, SWAPPED, WIDE, difference, encoded, matrix_profile, photo, stored_in
from saliency_r1.images import load_image, load_layers


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 98, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
@pytest.mark.parametrize("primaries", [WIDE, SWAPPED])
def test_the_profile_of_a_picture_is_applied_once(
    kind: str, options: dict[str, object], primaries: tuple[tuple[float, ...], ...]
) -> None:
    profile = matrix_profile(primaries)
    stored = stored_in(profile)
    assert difference(stored) > 8  # as it would come out without its profile
    read = load_image(encoded(stored, kind, icc_profile=profile, **options))
    assert difference(read) < 3
    assert "icc_profile" not in read.info
    assert load_image(read) is read


def test_a_profile_of_a_pil_image_is_applied_and_the_image_left_alone() -> None:
    profile = matrix_profile(WIDE)
    given = Image.open(BytesIO(encoded(stored_in(profile), "PNG", icc_profile=profile)))
    before = given.tobytes()
    assert difference(load_image(given)) < 3
    assert given.tobytes() == before
    assert given.info["icc_profile"] == profile


def test_srgb_pictures_come_out_bit_for_bit() -> None:
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    assert load_image(encoded(photo(), "PNG", icc_profile=profile)).tobytes() == photo().tobytes()


def test_transparency_outlives_the_profile() -> None:
    profile = matrix_profile(SWAPPED)
    stored = stored_in(profile).convert("RGBA")
    alpha = Image.linear_gradient("L").resize(stored.size)
    stored.putalpha(alpha)
    layer = load_layers(encoded(stored, "PNG", icc_profile=profile)).layer
    assert layer is not None
    assert layer.getchannel("A").tobytes() == alpha.tobytes()
    assert difference(layer.convert("RGB")) < 3


def test_grey_and_palette_pictures_take_a_profile_of_rgb() -> None:
    profile = matrix_profile(SWAPPED)
    palette = stored_in(profile).quantize(128)
    assert difference(load_image(encoded(palette, "PNG", icc_profile=profile))) < 8
    grey = photo().convert("L")
    read = np.asarray(load_image(encoded(grey, "PNG", icc_profile=matrix_profile(WIDE, gamma=1.8))), float)
    assert np.ptp(read, axis=2).max() <= 2
    assert read.mean() > np.asarray(grey, float).mean() + 5  # a gamma of 1.8 is brighter than sRGB's


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "profile",
    [b"no profile at all", matrix_profile(WIDE)[:150], matrix_profile(WIDE).replace(b"RGB ", b"CMYK", 1)],
    ids=["junk", "cut", "of another kind of pixels"],
)
def test_a_broken_profile_is_left_out_with_a_warning_and_the_picture_read(kind: str, profile: bytes) -> None:
    content = encoded(photo(), kind, icc_profile=profile)
    with pytest.warns(UserWarning, match=r"^bytes: its colour profile cannot be used, taken as sRGB \("):
        assert load_image(content).size == photo().size
