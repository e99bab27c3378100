"""How many pixels of a photo a policy looks at.

A policy answers in words, so a photo may be shown to it at any size: no coordinate has to be carried back.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Any

from PIL import Image

from saliency_r1.errors import SaliencyError

MAX_PIXELS = 1280 * 28 * 28
"""Pixels of a photo at most, unless told otherwise: 1,003,520, which are 1280 tokens of Qwen2.5-VL."""

_LEAST_PIXELS = 56 * 56
_LEAST_SIDE = 28
_MOST_ASPECT = 100
_CELL_PIXELS = 32 * 32
"""Behind one token of Qwen3-VL, the largest of the families' cells."""


def check_max_pixels(max_pixels: int) -> int:
    """That number, if it can be worked with.

    Raises:
        SaliencyError: if it is less than 3136 (56x56).
    """
    if max_pixels < _LEAST_PIXELS:
        raise SaliencyError(f"max_pixels is {max_pixels}: give at least {_LEAST_PIXELS} (56x56)")
    return max_pixels


def workable(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image, or one stretched so that it has sides of 28 pixels at least, and is not too long and narrow.

    Processors mistake very narrow images (three pixels high: three channels?) or refuse them, and a row of
    single cells would break the bound on pixels.
    """
    width, height = max(image.width, _LEAST_SIDE), max(image.height, _LEAST_SIDE)
    aspect = min(_MOST_ASPECT, max_pixels // _CELL_PIXELS)
    size = min(width, aspect * height), min(height, aspect * width)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def shrink(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image, or if it has more pixels than that a smaller one of the same shape."""
    scale = sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def limit_processor(image_processor: Any, max_pixels: int) -> bool:
    """Have an image processor of transformers that chooses the size of what it makes keep to the bound.

    - Qwen2-VL's kind keeps the shape of a photo, and has a bound on its pixels.
    - Idefics3's kind enlarges or reduces a photo to a longest side and cuts it into square tiles: the longest
      side becomes that of the most tiles whose square is within the bound, one at least. It adds one more
      tile, the whole photo.
    - InternVL's kind cuts a photo into as many tiles of one size as fit its shape best, and adds the whole
      photo as one more: their number is bounded, one at least.

    Returns:
        Whether it is of such a kind. All others must be shown photos of a bounded size.
    """
    size = dict(getattr(image_processor, "size", None) or {})
    if hasattr(image_processor, "crop_to_patches") and "height" in size:
        tiles = max(1, max_pixels // (size["height"] * size["width"]))
        image_processor.max_patches = min(image_processor.max_patches, tiles)
        return True
    if "longest_edge" not in size:
        return False
    if hasattr(image_processor, "temporal_patch_size"):
        # Small photos are enlarged to the shortest edge's pixels, and then to whole cells.
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
