"""The parts of the rewards in torch, on the device where the masks are.

Masks are grey values from 0 to 255. All sums over pixels are of whole numbers in float64, so they are exact:
a reward depends neither on the device nor on the order of additions. Nothing here waits for the device.
"""

from __future__ import annotations

import torch

HALF = 128
"""The least grey value of probability one half: 127.5 of 255."""

_EPSILON = 2.220446049250313e-16


def s_measure(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The S-measure (Fan et al., ICCV 2017, alpha 0.5) of a mask, as pysodmetrics computes it.

    Args:
        mask: uint8 (H, W), probability times 255.
        truth: bool (H, W).

    Returns:
        float64 (), in [0, 1].
    """
    height, width = truth.shape
    grey, inside = mask.double(), truth.double()
    rows, columns = inside.sum(1), inside.sum(0)
    area = rows.sum()
    row, column = (
        torch.arange(length, device=mask.device, dtype=torch.float64) for length in (height, width)
    )
    centre_row = (rows @ row / area.clamp(min=1)).round()
    centre_column = (columns @ column / area.clamp(min=1)).round()
    upper, left = (row <= centre_row).double(), (column <= centre_column).double()
    bands = torch.stack([upper, 1 - upper]), torch.stack([left, 1 - left], 1)

    def quarters(values: torch.Tensor) -> torch.Tensor:
        return bands[0] @ values @ bands[1]  # (2, 2) sums over the quarters around the centre

    both = grey * inside
    sums = quarters(grey), quarters(grey * grey), quarters(inside), quarters(both)
    pixels = bands[0].sum(1)[:, None] * bands[1].sum(0)[None]
    region = (_similarity(*sums, pixels) * pixels).sum() / (height * width)

    total = height * width
    inner, inner_squares = both.sum(), (both * grey).sum()
    outer, outer_squares = sums[0].sum() - inner, sums[1].sum() - inner_squares
    object_score = (
        _object(inner, inner_squares, area) * area
        # Of the background it is 1 - p that is judged.
        + _object(
            255 * (total - area) - outer,
            255**2 * (total - area) - 510 * outer + outer_squares,
            total - area,
        )
        * (total - area)
    ) / total
    mean = sums[0].sum() / (255 * total)
    score = torch.where(area == 0, 1 - mean, (object_score + region) / 2)
    return torch.where(area == total, mean, score).clamp(0, 1)


def _similarity(
    grey: torch.Tensor, squares: torch.Tensor, inside: torch.Tensor, both: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """The structural similarity of each quarter from its sums; 1 where both sides are flat and equal."""
    count = pixels.clamp(min=1)
    # Numerators of the variances are whole numbers: exactly 0 where a quarter is flat.
    spread = (count - 1 + _EPSILON) * count
    variance = (count * squares - grey * grey) / spread / 255**2
    truth_variance = (count * inside - inside * inside) / spread
    covariance = (count * both - grey * inside) / spread / 255
    mean, truth_mean = grey / count / 255, inside / count
    above = 4 * mean * truth_mean * covariance
    below = (mean**2 + truth_mean**2) * (variance + truth_variance)
    return torch.where(above != 0, above / (below + _EPSILON), (below == 0).double())


def _object(grey: torch.Tensor, squares: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The object-aware score of `count` grey values of that sum and sum of squares."""
    several = count.clamp(min=2)
    mean = grey / count.clamp(min=1) / 255
    deviation = ((several * squares - grey * grey).clamp(min=0) / (several * (several - 1))).sqrt() / 255
    deviation = torch.where(count > 1, deviation, 0.0)
    return 2 * mean / (mean**2 + 1 + deviation + _EPSILON)


def sod_parts_of(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """IoU and S-measure of a mask, with the rules for empty ones of `saliency_r1.rewards.sod.sod_parts`.

    Args:
        mask: uint8 (H, W), probability times 255.
        truth: bool (H, W).

    Returns:
        float64 (2,), each in [0, 1].
    """
    binary = mask >= HALF
    some, wanted = binary.any(), truth.any()
    both, either = (binary & truth).sum(), (binary | truth).sum()
    parts = torch.stack([both.double() / either.clamp(min=1), s_measure(mask, truth)])
    return torch.where(some & wanted, parts, (~some & ~wanted).double())


def overlaps(masks: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """The IoU of each mask with each true instance.

    Args:
        masks: uint8 (P, H, W), probability times 255.
        truths: bool (T, H, W), none of them empty.

    Returns:
        float64 (P, T).
    """
    found, wanted = (masks >= HALF).flatten(1).float(), truths.flatten(1).float()
    both = (found @ wanted.T).double()
    return both / (found.sum(1).double()[:, None] + wanted.sum(1).double()[None] - both)
