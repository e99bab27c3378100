"""The parts of the rewards in torch, on the device where the masks are.

Masks are grey values from 0 to 255, so the number of pixels of each value is all that IoU and S-measure need.
All sums are of whole numbers in float64, which is exact: a reward does not depend on the device or the order
of additions. Nothing here waits for the device.
"""

from __future__ import annotations

import torch

HALF = 128
"""The least grey value of probability one half: 127.5 of 255."""

PIXELS_AT_ONCE = 2**17
"""Pixels that are counted in one go: small parts stay in the cache, and need little memory."""

_EPSILON = 2.220446049250313e-16


def s_measure(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Compute the S-measure (Fan et al., ICCV 2017, alpha 0.5) of a mask as pysodmetrics does.

    Args:
        mask: uint8 (H, W), probability times 255.
        truth: bool (H, W).

    Returns:
        float64 (), in [0, 1].
    """
    return _s_measure(_counted(mask, truth))


def _counted(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Count the pixels of each grey value around the truth's centre.

    Returns:
        float64 (2, 2, 2, 256): above and below the centre, left and right of it, outside and inside the
        truth, grey value.
    """
    rows, columns = truth.sum(1), truth.sum(0)
    below, right = (
        (torch.arange(len(lengths), device=mask.device) > _centre(lengths)).short()
        for lengths in (rows, columns)
    )
    counts = torch.zeros(2048, dtype=torch.int64, device=mask.device)
    one = torch.ones((), dtype=torch.int64, device=mask.device)
    step = max(1, PIXELS_AT_ONCE // mask.shape[1])
    for start in range(0, len(mask), step):
        part = slice(start, start + step)
        bins = below[part, None] * 1024 + right * 512
        bins += truth[part].short() * 256
        bins += mask[part]
        counts.scatter_add_(0, bins.flatten().long(), one.expand(bins.numel()))
    return counts.double().view(2, 2, 2, 256)


def _centre(lengths: torch.Tensor) -> torch.Tensor:
    """The mean place, rounded, of so many pixels at each place; 0 without any."""
    places = torch.arange(len(lengths), device=lengths.device, dtype=torch.float64)
    return (lengths.double() @ places / lengths.sum().clamp(min=1)).round()


def _s_measure(counts: torch.Tensor) -> torch.Tensor:
    values = torch.arange(256, device=counts.device, dtype=torch.float64)
    grey, squares = counts @ values, counts @ values**2  # (2, 2, 2) sums over the quarters around the centre
    pixels, inside = counts.sum((2, 3)), counts[:, :, 1].sum(2)
    total, area = pixels.sum(), inside.sum()
    similarity = _similarity(grey.sum(2), squares.sum(2), inside, grey[:, :, 1], pixels)
    region = (similarity * pixels).sum() / total

    outer, inner = grey.sum((0, 1))
    outer_squares, inner_squares = squares.sum((0, 1))
    object_score = (
        _object(inner, inner_squares, area) * area
        # For the background 1 - p counts.
        + _object(
            255 * (total - area) - outer,
            255**2 * (total - area) - 510 * outer + outer_squares,
            total - area,
        )
        * (total - area)
    ) / total
    mean = (inner + outer) / (255 * total)
    score = torch.where(area == 0, 1 - mean, (object_score + region) / 2)
    return torch.where(area == total, mean, score).clamp(0, 1)


def _similarity(
    grey: torch.Tensor, squares: torch.Tensor, inside: torch.Tensor, both: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """Return the structural similarity of each quarter from its sums; 1 if both sides are flat and equal."""
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
    """Return the object-aware score of `count` grey values with that sum and sum of squares."""
    several = count.clamp(min=2)
    mean = grey / count.clamp(min=1) / 255
    deviation = ((several * squares - grey * grey).clamp(min=0) / (several * (several - 1))).sqrt() / 255
    deviation = torch.where(count > 1, deviation, 0.0)
    return 2 * mean / (mean**2 + 1 + deviation + _EPSILON)


def sod_parts_of(mask: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return IoU and S-measure of a mask, with the rules for empty ones of `rewards.sod.sod_parts`.

    Args:
        mask: uint8 (H, W), probability times 255.
        truth: bool (H, W).

    Returns:
        float64 (2,), each in [0, 1].
    """
    counts = _counted(mask, truth)
    found, area = counts[..., HALF:].sum((0, 1, 3)), counts[:, :, 1].sum()
    some, wanted = found.sum() > 0, area > 0
    iou = found[1] / (found[0] + area).clamp(min=1)
    parts = torch.stack([iou, _s_measure(counts)])
    return torch.where(some & wanted, parts, (~some & ~wanted).double())


def overlaps(masks: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Return the IoU of each mask with each true instance.

    Args:
        masks: uint8 (P, H, W), probability times 255.
        truths: bool (T, H, W), none of them empty.

    Returns:
        float64 (P, T).
    """
    found, wanted = (masks >= HALF).flatten(1).float(), truths.flatten(1).float()
    both = (found @ wanted.T).double()
    return both / (found.sum(1).double()[:, None] + wanted.sum(1).double()[None] - both)
