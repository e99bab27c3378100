"""Reduce the instances that a model finds for an expression to the one mask that was asked for."""

from __future__ import annotations

import torch

NOTHING = -1e4
"""A logit with probability 0 in float32."""


def one_mask(logits: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the union of instances, or an empty mask if there are none.

    Args:
        logits: logits of their masks, float32 (M, h, w).
        scores: the model's score of each, float32 (M,) in [0, 1].

    Returns:
        The union's logits (h, w), the largest at each pixel, and the mean of the scores by area, like
        the IoU of a union of disjoint masks; 0 without instances.
    """
    if not len(scores):
        return logits.new_full(logits.shape[1:], NOTHING), 0.0
    areas = (logits > 0).flatten(1).sum(1).clamp(min=1)
    return logits.amax(0), float((scores * areas).sum() / areas.sum())


def kept(scores: torch.Tensor, threshold: float, most: int) -> torch.Tensor:
    """Select which of a model's candidates are instances, the best first.

    Args:
        scores: float32 (Q,) in [0, 1].
        threshold: minimum score of an instance.
        most: maximum number of instances.

    Returns:
        The indices of the instances, int64 (M,).
    """
    order = scores.argsort(descending=True, stable=True)[:most]
    return order[scores[order] >= threshold]
