"""The loss that the nano segmenter is trained with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_r1.nano.segmenter_model import SegmenterOutput


def segmentation_loss(
    output: SegmenterOutput, target: Tensor, edge_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy plus soft IoU at four scales, and the error of the expected IoU.

    Pixels near a boundary weigh more, as in F3Net (Wei et al., AAAI 2020): 1 plus `edge_weight` times how far
    the truth differs from its mean over the neighbourhood.

    Args:
        output: logits for N expressions.
        target: float (N, 1, S, S) in [0, 1].
        edge_weight: 0 or more.

    Returns:
        The loss, and the IoU (N,) at threshold 0.5 that the quality head was asked to expect.
    """
    loss = target.new_zeros(())
    scales = ((output.stride2, 1.0), (output.stride4, 0.4), (output.stride8, 0.3), (output.stride16, 0.3))
    for logits, weight in scales:
        logits = logits.float()
        goal = F.interpolate(target, size=logits.shape[-2:], mode="area")
        near = (_neighbourhood(goal) - goal).abs()
        weights = 1 + edge_weight * near
        probability = logits.sigmoid()
        both = (probability * goal * weights).sum((1, 2, 3))
        either = ((probability + goal - probability * goal) * weights).sum((1, 2, 3))
        slack = 0.002 * goal[0].numel()
        entropy = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
        loss = loss + weight * (entropy * weights).sum() / weights.sum()
        loss = loss + weight * (1 - (both + slack) / (either + slack)).mean()
    with torch.no_grad():
        small = F.interpolate(target, size=output.stride2.shape[-2:], mode="area") > 0.5
        iou = binary_iou(output.stride2 > 0, small)
    return loss + 0.5 * F.binary_cross_entropy_with_logits(output.quality.float(), iou), iou


def _neighbourhood(goal: Tensor) -> Tensor:
    """The mean over the tenth of a side around each pixel, taken on 20 cells a side because it is smooth."""
    coarse = F.adaptive_avg_pool2d(goal, 20)
    coarse = F.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)
    return F.interpolate(coarse, size=goal.shape[-2:], mode="bilinear", align_corners=False)


def binary_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU (N,) of bool masks (N, 1, H, W); 1 where both are empty."""
    both = (first & second).flatten(1).sum(1).float()
    either = (first | second).flatten(1).sum(1).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))
