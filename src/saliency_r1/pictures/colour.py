"""Convert colours to sRGB, from any profile of a picture."""

from __future__ import annotations

import warnings
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from saliency_r1.errors import one_line

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

_SPACES = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",), "Lab": ("LAB",)}
"""The modes of PIL whose pixels have the colour space of a profile."""

_SAME = 1  # of 255: a profile that changes no colour by more counts as sRGB


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert a picture from its ICC profile to sRGB, perceptually, as browsers do.

    Args:
        image: image of mode RGB, RGBA, L, LA, CMYK or LAB. It is not changed.
        profile: colour profile of its pixels; None or empty for sRGB.
        name: its name in warnings.

    Returns:
        RGB or RGBA; `image` itself if the profile changes nothing. A profile that is broken, or for another
        kind of pixels, is ignored with a warning, as in viewers.
    """
    if not profile:
        return image
    try:
        space = _space(profile)
        if image.mode == "LA":
            layer = to_srgb(image.getchannel(0), profile, name).convert("RGB")
            layer.putalpha(image.getchannel("A"))
            return layer
        if image.mode == "L" and space == "RGB":
            image = image.convert("RGB")
        if image.mode not in _SPACES.get(space, ()):
            raise ValueError(f"it is of {space or 'unknown'} pixels, the picture of {image.mode}")
        transform = _transform(profile, image.mode)
        return image if transform is None else transform.apply(image)
    except Exception as error:  # PIL wraps the errors of lcms in several classes
        warnings.warn(
            f"{name}: its colour profile cannot be used, taken as sRGB ({one_line(error)})", stacklevel=2
        )
        return image


@lru_cache(maxsize=16)
def _space(profile: bytes) -> str:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """Return the transform from the profile to sRGB; None if it would not change colours."""
    from PIL import ImageCms

    out = "RGBA" if mode == "RGBA" else "RGB"
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, out
    )
    if mode not in ("RGB", "RGBA"):
        return transform
    levels = np.linspace(0, 255, 8).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    cube = Image.fromarray(colours).convert(mode)
    moved = np.abs(np.asarray(transform.apply(cube)).astype(int) - np.asarray(cube)).max()
    return None if moved <= _SAME else transform
