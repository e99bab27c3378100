"""Cut-outs without a halo: alpha as sharp as the photo is, and the object's own colours on soft edges.

Where alpha is neither 0 nor 1, a pixel of the photo shows object and background mixed. What both look like
around it is filled in from where each is seen alone, from fine to coarse as in the pull-push method (Gortler
et al., "The Lumigraph", SIGGRAPH 1996). The object's colour is then the one nearest to that with which the
mixture gives what the photo shows (as in Forte, "Approximate fast foreground colour estimation", ICIP 2021).
All is found at a bounded resolution; at the photo's own only the pixels near soft edges are looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageOps
from torch import Tensor

from saliency_r1.errors import SaliencyError
from saliency_r1.images import load_image
from saliency_r1.overlay import to_grey
from saliency_r1.upsampling import apply_functions, linear_functions

WORK_PIXELS = 500_000
"""Pixels at which edges and colours are found, at most."""

# The rest was chosen with benchmarks/cutouts.py --choosing.
CONTRAST = 2.0
"""How much steeper alpha is than the mask's probability."""

RADIUS, EPSILON = 0.03, 1e-4
"""Window and flatness of the guided filter, see `upsampling.linear_functions`."""

INSIDE, THIN = 1, 0.1
"""Pixels that colours keep away from the edge, and what a colour nearer to it counts beside 1."""

TRUST = 0.3
"""How much the filled-in colours count beside what the photo shows."""

_NONE = 0.02
_BAND = 3  # pixels around what the mask is unsure of that are looked at again
_ROWS = 256
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
    picture = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    held = torch.from_numpy(rough)[None, None].float() / 255
    if matting:
        from saliency_r1.matting import closed_form

        alpha = torch.from_numpy(closed_form(small, held[0, 0].numpy()))[None, None]
        if scale < 1:  # on the photo alpha is the same function of the colour as on the small one
            functions = linear_functions(alpha, picture, 0, EPSILON, side=max(grid))
        else:
            functions = torch.cat([alpha.new_zeros((1, 3, *grid)), alpha], dim=1)
    else:
        functions = linear_functions(held, picture, RADIUS, EPSILON, contrast=CONTRAST)
        alpha = apply_functions(functions, picture)
    unsure = ((alpha > _NONE) & (alpha < 1 - _NONE)) | ((held > _NONE) & (held < 1 - _NONE))
    band = Image.fromarray(_widest(unsure.float(), _BAND)[0, 0].byte().numpy())
    maps = functions, torch.cat(_colours(picture, alpha), dim=1)
    near = np.asarray(band.resize(photo.size, Image.Resampling.NEAREST))
    whole = pixels.view(np.uint32)[..., 0]
    for top in range(0, photo.height, _ROWS):
        strip = pixels[top : top + _ROWS]
        rows, columns = np.nonzero(near[top : top + _ROWS])
        if len(rows):
            strip[rows, columns] = _softened(strip[rows, columns], maps, top + rows, columns, mask.shape)
        whole[top : top + _ROWS] *= strip[..., 3] > 0
    return Image.fromarray(pixels)


def _reduced(picture: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """The picture on a grid of so many rows and columns, uint8."""
    return np.array(picture.resize(grid[::-1], Image.Resampling.BILINEAR, reducing_gap=1.0))


def _colours(picture: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """What object and background look like at and around each pixel, (1, 3, H, W) each."""
    inner = -_widest(-alpha, INSIDE)
    own = torch.maximum(inner**2, THIN * alpha**2)
    other = (1 - alpha) ** 2
    return _filled(picture, own), torch.lerp(_filled(picture, other), picture, other)


def _widest(maps: Tensor, reach: int) -> Tensor:
    """The largest value within so many pixels to each side."""
    rows = F.max_pool2d(maps, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))


def _filled(picture: Tensor, weight: Tensor) -> Tensor:
    """Mean colours (1, 3, H, W) around each pixel of what counts there, by weights (1, 1, H, W) in [0, 1]."""
    if max(picture.shape[2:]) == 1:
        return picture
    kernel = [min(2, side) for side in picture.shape[2:]]
    sums = F.avg_pool2d(torch.cat([picture * weight, weight], dim=1), kernel, ceil_mode=True)
    coarse = sums[:, :3] / (sums[:, 3:] + 1e-8)
    counted = (4 * sums[:, 3:]).clamp_(max=1)
    coarse = torch.lerp(_filled(coarse, counted), coarse, counted)
    return F.interpolate(coarse, size=picture.shape[2:], mode="bilinear", align_corners=False)


def _softened(
    pixels: np.ndarray,
    maps: tuple[Tensor, Tensor],
    rows: np.ndarray,
    columns: np.ndarray,
    size: tuple[int, ...],
) -> np.ndarray:
    """Alpha and colours of pixels near an edge, uint8 (N, 4)."""
    place = torch.from_numpy(
        np.stack([(2 * columns + 1) / size[1] - 1, (2 * rows + 1) / size[0] - 1], axis=1).astype(np.float32)
    )[None, None]
    function, colour = (
        F.grid_sample(part, place, padding_mode="border", align_corners=False)[0, :, 0] for part in maps
    )
    seen = torch.from_numpy(pixels[:, :3]).T.float() / 255
    alpha = ((function[:3] * seen).sum(0) + function[3]).clamp(0, 1)
    own, other = colour.split(3)
    rest = seen - alpha * own - (1 - alpha) * other
    own = own + rest * alpha / (alpha**2 + (1 - alpha) ** 2 + TRUST * (1 - alpha))
    return torch.cat([own, alpha[None]]).mul_(255).round_().clamp_(0, 255).byte().T.numpy()


def read_background(text: str) -> Image.Image | tuple[int, int, int]:
    """Read what a cut-out is to lie on: a picture's file, or a colour as `#ffffff`, `white` or `rgb(0,0,0)`.

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
    """Put a cut-out (RGBA) on a colour, or on a picture that is enlarged and cut to its size; RGB."""
    if isinstance(background, Image.Image):
        result = ImageOps.fit(background.convert("RGB"), cutout.size, Image.Resampling.BICUBIC)
    else:
        result = Image.new("RGB", cutout.size, background)
    result.paste(cutout, mask=cutout.getchannel("A"))
    return result


def cropped(cutout: Image.Image) -> Image.Image:
    """Keep the part of a cut-out (RGBA) that holds something; all of it if nothing does."""
    box = cutout.getchannel("A").point([255 * (value >= _VISIBLE) for value in range(256)]).getbbox()
    return cutout.crop(box) if box else cutout
