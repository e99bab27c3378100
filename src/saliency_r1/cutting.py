"""Make cut-outs without a halo: alpha as sharp as the photo, and the object's own colours on soft edges.

Where alpha is neither 0 nor 1, a pixel of the photo mixes object and background. The colours of both around
it are filled in from places where only one of them is visible, from fine to coarse as in the pull-push method
(Gortler et al., "The Lumigraph", SIGGRAPH 1996). The object's colour is then the nearest one with which the
mixture gives what the photo shows (as in Forte, "Approximate fast foreground colour estimation", ICIP 2021).
This is computed at a bounded resolution; at the photo's own only the pixels near soft edges are processed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from saliency_r1.errors import SaliencyError
from saliency_r1.images import load_image
from saliency_r1.overlay import to_grey
from saliency_r1.upsampling import apply_functions, as_picture, linear_functions, resized

WORK_PIXELS = 500_000
"""Maximum number of pixels at which edges and colours are computed."""

# The rest was chosen with benchmarks/cutouts.py --choosing.
CONTRAST = 2.0
"""Factor by which alpha is steeper than the mask's probability."""

RADIUS, EPSILON = 0.03, 1e-4
"""Window and flatness of the guided filter, see `upsampling.linear_functions`."""

INSIDE, THIN = 1, 0.1
"""Pixels that colours keep away from the edge, and what a colour nearer to it counts beside 1."""

TRUST = 0.3
"""Weight of the filled-in colours beside what the photo shows."""

_NONE = 0.02
_BAND = 3  # pixels around uncertain parts of the mask that are processed again
_ROWS = 64
_VISIBLE = 8  # of 255: alpha from which on a pixel counts for the crop
_STEEPER = [round(255 * min(1.0, max(0.0, CONTRAST * (value / 255 - 0.5) + 0.5))) for value in range(256)]


def cut_out(photo: Image.Image, mask: np.ndarray, *, matting: bool = False) -> Image.Image:
    """Cut what a mask holds out of a photo.

    Args:
        photo: RGB.
        mask: probabilities, float32 (H, W) in [0, 1], of the photo's size.
        matting: whether alpha is solved for, for hair and fur; see `saliency_r1.matting`.

    Returns:
        RGBA of the photo's size; what is fully transparent is black, not the photo.
    """
    grey = to_grey(mask)
    if grey.getbbox() is None:
        return Image.new("RGBA", photo.size)
    pixels = np.empty((*mask.shape, 4), np.uint8)
    pixels[..., :3] = np.asarray(photo)
    pixels[..., 3] = np.asarray(grey.point(_STEEPER))
    scale = min(1.0, (WORK_PIXELS / mask.size) ** 0.5)
    grid = max(1, round(mask.shape[0] * scale)), max(1, round(mask.shape[1] * scale))
    small, rough = _reduced(photo, grid), _reduced(grey, grid)
    picture, held = as_picture(small), rough.astype(np.float32) / 255
    if matting:
        from saliency_r1.matting import closed_form

        alpha = closed_form(small, held)
        if scale < 1:  # on the photo alpha is the same function of the colour as on the small one
            (functions,) = linear_functions(alpha[None], picture, 0, EPSILON, side=max(grid))
        else:
            functions = np.concatenate([np.zeros((3, *grid), np.float32), alpha[None]])
    else:
        (functions,) = linear_functions(held[None], picture, RADIUS, EPSILON, contrast=CONTRAST)
        (alpha,) = apply_functions(functions[None], picture)
    unsure = ((alpha > _NONE) & (alpha < 1 - _NONE)) | ((held > _NONE) & (held < 1 - _NONE))
    band = Image.fromarray(_widest(unsure, _BAND).astype(np.uint8))
    maps = functions, np.concatenate(_colours(picture, alpha))
    tables = [np.ascontiguousarray(np.moveaxis(part, 0, -1)) for part in maps]
    near = np.asarray(band.resize(photo.size, Image.Resampling.NEAREST))
    whole = pixels.view(np.uint32)[..., 0]  # one number for each pixel is faster to pick than four
    for top in range(0, photo.height, _ROWS):
        strip = whole[top : top + _ROWS]
        places = np.flatnonzero(near[top : top + _ROWS])
        if len(places):
            rows, columns = np.divmod(places, photo.width)
            found = _softened(strip.take(places), tables, top + rows, columns, mask.shape)
            strip.reshape(-1)[places] = found
        strip *= pixels[top : top + _ROWS, :, 3] > 0
    return Image.fromarray(pixels)


def _reduced(picture: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """Resize the picture to a grid of so many rows and columns, uint8."""
    return np.array(picture.resize(grid[::-1], Image.Resampling.BILINEAR, reducing_gap=1.0))


def _colours(picture: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of object and background at and around each pixel, float32 (3, H, W) each."""
    inner = -_widest(-alpha, INSIDE)
    own = np.maximum(inner**2, THIN * alpha**2)
    other = (1 - alpha) ** 2
    return _filled(picture, own), _between(_filled(picture, other), picture, other)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix two pictures, of which the second has that share."""
    mixed: np.ndarray = first + share * (second - first)
    return mixed


def _widest(map_: np.ndarray, reach: int) -> np.ndarray:
    """Return the largest value within so many pixels to each side, (H, W)."""
    for axis in (0, 1):
        found = map_.copy()
        ahead, behind = np.moveaxis(found, axis, 0), np.moveaxis(map_, axis, 0)
        for step in range(1, min(reach, len(ahead) - 1) + 1):
            np.maximum(ahead[step:], behind[:-step], out=ahead[step:])
            np.maximum(ahead[:-step], behind[step:], out=ahead[:-step])
        map_ = found
    return map_


def _filled(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return mean colours (3, H, W) around each pixel, by weights (H, W) in [0, 1]."""
    if max(weight.shape) == 1:
        return picture
    sums = _halved(np.concatenate([picture * weight, weight[None]]))
    coarse = sums[:3] / (sums[3] + np.float32(1e-8))
    counted = np.minimum(4 * sums[3], 1)
    coarse = _between(_filled(coarse, counted), coarse, counted)
    return resized(coarse, weight.shape)


def _halved(maps: np.ndarray) -> np.ndarray:
    """Return the means of 2x2 places; at the end of an odd side, of the existing places."""
    for axis in (1, 2):
        lines = np.moveaxis(maps, axis, 0)
        pairs = (lines[0 : len(lines) // 2 * 2 : 2] + lines[1::2]) / 2
        maps = np.moveaxis(np.concatenate([pairs, lines[len(pairs) * 2 :]]), 0, axis)
    return maps


def _softened(
    pixels: np.ndarray,
    tables: Sequence[np.ndarray],
    rows: np.ndarray,
    columns: np.ndarray,
    size: tuple[int, ...],
) -> np.ndarray:
    """Return pixels near an edge with their alpha and the object's colours, RGBA in one uint32 (N,)."""
    function, colour = (_at(table, (rows + 0.5) / size[0], (columns + 0.5) / size[1]) for table in tables)
    seen = pixels.view(np.uint8).reshape(-1, 4)[:, :3] * np.float32(1 / 255)
    alpha = ((function[:, :3] * seen).sum(1) + function[:, 3]).clip(0, 1)[:, None]
    own, other = colour[:, :3], colour[:, 3:]
    rest = seen - alpha * own - (1 - alpha) * other
    own = own + rest * (alpha / (alpha**2 + (1 - alpha) ** 2 + TRUST * (1 - alpha)))
    found = np.concatenate([own, alpha], axis=1)
    return np.rint(255 * found).clip(0, 255).astype(np.uint8).view(np.uint32)[:, 0]


def _at(table: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Sample maps (H, W, C) at places in [0, 1] of height and width, bilinear, (N, C)."""
    height, width, channels = table.shape
    (top, bottom, lower), (left, right, farther) = _lines(down, height), _lines(across, width)
    flat = table.reshape(-1, channels)
    corners = (flat.take(row * width + column, 0) for row in (top, bottom) for column in (left, right))
    first, second, third, fourth = corners
    return _between(_between(first, second, farther), _between(third, fourth, farther), lower)


def _lines(places: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lines before and after each place in [0, 1], and the share of the second, (N, 1)."""
    exact = (places * length - 0.5).clip(0, length - 1)
    first = exact.astype(int)
    return first, np.minimum(first + 1, length - 1), (exact - first).astype(np.float32)[:, None]


def read_background(text: str) -> Image.Image | tuple[int, int, int]:
    """Read the background of a cut-out: a picture's file, or a colour as `#ffffff`, `white` or `rgb(0,0,0)`.

    Raises:
        SaliencyError: if it is neither.
    """
    if Path(text).is_file():
        return load_image(text)
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise SaliencyError(f"{text}: no such file or colour; give '#ffffff', a name or a picture") from None
    return red, green, blue


def on_background(cutout: Image.Image, background: Image.Image | tuple[int, int, int]) -> Image.Image:
    """Put a cut-out (RGBA) on a colour, or on a picture that is scaled and cropped to its size; RGB."""
    if isinstance(background, Image.Image):
        result = ImageOps.fit(background.convert("RGB"), cutout.size, Image.Resampling.BICUBIC)
    else:
        result = Image.new("RGB", cutout.size, background)
    result.paste(cutout, mask=cutout.getchannel("A"))
    return result


def cropped(cutout: Image.Image) -> Image.Image:
    """Crop a cut-out (RGBA) to its visible part; keep all of it if nothing is visible."""
    box = cutout.getchannel("A").point([255 * (value >= _VISIBLE) for value in range(256)]).getbbox()
    return cutout.crop(box) if box else cutout
