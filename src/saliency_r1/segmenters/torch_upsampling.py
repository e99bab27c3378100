"""`saliency_r1.upsampling` with torch, for masks that stay where a segmenter runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_r1.upsampling import CONTRAST, EPSILON, GRID_SIDE, PAIRS, RADIUS


def upsample(logits: Tensor, guide: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks to a photo's size along the edges of its guide.

    Args:
        logits: float (N, 1, h, w), of any resolution.
        guide: uint8 (H, W, 3), from `guide_of`, on the same device.
        size: height and width of the photo, or smaller ones for masks that are only compared; then the guide
            is made smaller first.

    Returns:
        Probabilities, float (N, 1, *size) in [0, 1].
    """
    picture = guide.permute(2, 0, 1)[None].to(logits.dtype) / 255
    if size[0] < picture.shape[2] and size[1] < picture.shape[3]:
        picture = F.interpolate(picture, size=size, mode="area")
    functions = linear_functions(logits.sigmoid(), picture, RADIUS, EPSILON, contrast=CONTRAST)
    return _resized(apply_functions(functions, picture), size)


def apply_functions(functions: Tensor, picture: Tensor) -> Tensor:
    """Apply linear functions of the colour, of any resolution.

    Args:
        functions: float (N, 4, h, w), three slopes and an offset.
        picture: float (1, 3, H, W) in [0, 1].

    Returns:
        float (N, 1, H, W), cut to [0, 1].
    """
    functions = _resized(functions, tuple(picture.shape[2:]))
    found = functions[:, 3:].clone()
    for channel in range(3):
        found.addcmul_(functions[:, channel : channel + 1], picture[:, channel : channel + 1])
    return found.clamp_(0, 1)


def linear_functions(
    masks: Tensor,
    picture: Tensor,
    radius: float,
    epsilon: float,
    *,
    contrast: float = 1.0,
    side: int = GRID_SIDE,
) -> Tensor:
    """Measure how the colour predicts the masks around each place, on a small grid.

    Args:
        masks: float (N, 1, h, w) in [0, 1].
        picture: float (1, 3, H, W) in [0, 1].
        radius: half the window's side, as a share of the grid's longer side.
        epsilon: variance of the colour below which a window counts as flat.
        contrast: factor by which the masks are made steeper around one half.
        side: the longer side of the grid, at most.

    Returns:
        Three slopes and an offset, float (N, 4, h', w'): mask = sum(slope * colour) + offset.
    """
    scale = min(1.0, side / max(picture.shape[2:]))
    grid = tuple(max(1, round(side * scale)) for side in picture.shape[2:])
    colour = F.interpolate(picture, size=grid, mode="area") if scale < 1 else picture
    masks = _resized(masks, grid)
    reach = max(1, round(radius * max(grid)))
    mean, mask_mean = _mean(colour, reach), _mean(masks, reach)
    # The colours' covariance, and its inverse by cofactors.
    squares = _mean(torch.cat([colour[:, i : i + 1] * colour[:, j : j + 1] for i, j in PAIRS], dim=1), reach)
    rr, rg, rb, gg, gb, bb = (
        (squares[:, k] - mean[:, i] * mean[:, j] + (epsilon if i == j else 0))[:, None]
        for k, (i, j) in enumerate(PAIRS)
    )
    cofactors = (
        (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg),
        (rb * gb - rg * bb, rr * bb - rb * rb, rg * rb - rr * gb),
        (rg * gb - rb * gg, rg * rb - rr * gb, rr * gg - rg * rg),
    )
    determinant = rr * cofactors[0][0] + rg * cofactors[0][1] + rb * cofactors[0][2]
    shared = _mean((colour * masks).flatten(0, 1)[None], reach).view(len(masks), 3, *grid) - mean * mask_mean
    slopes = torch.cat(
        [sum(row[i] * shared[:, i : i + 1] for i in range(3)) / determinant for row in cofactors], dim=1
    )
    offsets = mask_mean - (slopes * mean).sum(1, keepdim=True)
    functions = contrast * _mean(torch.cat([slopes, offsets], dim=1), reach)
    functions[:, 3] -= (contrast - 1) / 2
    return functions


def _mean(maps: Tensor, reach: int) -> Tensor:
    """The mean over the square window around each place, of what of it lies within the map."""
    for window, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        maps = F.avg_pool2d(maps, window, stride=1, padding=padding, count_include_pad=False)
    return maps


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
