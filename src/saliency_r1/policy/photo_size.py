"""The number of pixels of a photo that a policy sees.

A policy answers in words, so it may see a photo at any size: there are no coordinates to convert back.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Any

from PIL import Image

from saliency_r1.errors import SaliencyError

MAX_PIXELS = 1280 * 28 * 28
"""Default maximum of pixels of a photo: 1,003,520, which are 1280 tokens of Qwen2.5-VL."""

_LEAST_PIXELS = 56 * 56
_LEAST_SIDE = 28
_MOST_ASPECT = 100
_CELL_PIXELS = 32 * 32
"""Pixels behind one token of Qwen3-VL, the largest of all families."""


def check_max_pixels(max_pixels: int) -> int:
    """Check that number of pixels.

    Raises:
        SaliencyError: if it is less than 3136 (56x56).
    """
    if max_pixels < _LEAST_PIXELS:
        raise SaliencyError(f"max_pixels is {max_pixels}: give at least {_LEAST_PIXELS} (56x56)")
    return max_pixels


def workable(image: Image.Image, max_pixels: int) -> Image.Image:
    """Return the image, stretched if a side has fewer than 28 pixels or if it is too long and narrow.

    Processors misread very narrow images (three pixels high: three channels?) or refuse them, and a row of
    single cells would exceed the limit of pixels.
    """
    width, height = max(image.width, _LEAST_SIDE), max(image.height, _LEAST_SIDE)
    aspect = min(_MOST_ASPECT, max_pixels // _CELL_PIXELS)
    size = min(width, aspect * height), min(height, aspect * width)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def shrink(image: Image.Image, max_pixels: int) -> Image.Image:
    """Return the image, reduced in proportion if it has more pixels than that."""
    scale = sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def limit_processor(image_processor: Any, max_pixels: int) -> bool:
    """Apply the limit to an image processor of transformers that chooses its own output size.

    - Qwen2-VL's kind keeps the proportions of a photo, and has a limit of pixels.
    - Idefics3's kind enlarges or reduces a photo to a longest side and cuts it into square tiles: the longest
      side is set to that of the largest square of tiles within the limit, at least one. It adds the whole
      photo as one more tile.
    - InternVL's kind cuts a photo into as many tiles of one size as fit its shape best, and adds the whole
      photo as one more: their number is limited, at least one.

    Returns:
        Whether it is of such a kind. For all others the photos must be reduced first.
    """
    size = dict(getattr(image_processor, "size", None) or {})
    if hasattr(image_processor, "crop_to_patches") and "height" in size:
        tiles = max(1, max_pixels // (size["height"] * size["width"]))
        image_processor.max_patches = min(image_processor.max_patches, tiles)
        return True
    if "longest_edge" not in size:
        return False
    if hasattr(image_processor, "temporal_patch_size"):
        # Small photos are enlarged to the pixels of the shortest edge, and then to whole cells.
        bounded = {
            "longest_edge": min(size["longest_edge"], max_pixels),
            "shortest_edge": min(size["shortest_edge"], max_pixels // 4),
        }
    elif hasattr(image_processor, "do_image_splitting"):
        tile = image_processor.max_image_size["longest_edge"]
        side = max(1, isqrt(max_pixels) // tile) * tile
        bounded = {**size, "longest_edge": min(size["longest_edge"], side)}
    else:
        return False
    image_processor.size = type(image_processor.size)(**bounded)
    return True
