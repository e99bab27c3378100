"""Salient instances out of the masks of several expressions: which are the same, and how sure each is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from saliency_r1.result import Instance
from saliency_r1.segmenters.base import Segmentation

SAME_INSTANCE_IOU = 0.9

Score: TypeAlias = Callable[[np.ndarray, float, float | None], float]
"""What `instance_score` is; another one may be tried in its place."""


def instance_score(probabilities: np.ndarray, segmenter_score: float, confidence: float | None) -> float:
    """By which instances are ranked, in [0, 1]: the IoU that the segmenter expects its mask to have.

    It is the one place that decides; `benchmarks/nano_tasks.py --rows scenes` compares the candidates.

    Args:
        probabilities: of the mask, float32 (H, W) in [0, 1].
        segmenter_score: the segmenter's own score of the mask, in [0, 1].
        confidence: the policy's in the expression, in [0, 1]; None if it tells none.
    """
    return segmenter_score


def mean_probability(probabilities: np.ndarray) -> float:
    """The mean of the probabilities of at least 0.5, in [0, 1]; 0 if there are none.

    Args:
        probabilities: float32 (H, W) in [0, 1].
    """
    inside = probabilities[probabilities >= 0.5]
    return min(1.0, float(inside.mean(dtype=np.float64))) if inside.size else 0.0


def scored_instances(
    expressions: Sequence[str],
    found: Segmentation,
    confidences: Sequence[float | None],
    score: Score = instance_score,
) -> list[Instance]:
    """An instance for each expression, in their order.

    Args:
        expressions: N of them.
        found: their masks on one image.
        confidences: the policy's in each expression.
        score: how an instance is scored.
    """
    return [
        Instance(expression, mask, score(mask, float(own), confidence))
        for expression, mask, own, confidence in zip(
            expressions, found.probabilities, found.scores, confidences, strict=True
        )
    ]


def distinct_instances(instances: Sequence[Instance]) -> list[Instance]:
    """The instances without those that are empty or that another one of a higher score nearly equals.

    Two masks nearly equal each other if their IoU is over 0.9 (both taken at 0.5). The order stays.
    """
    kept: list[tuple[int, np.ndarray]] = []
    for index in sorted(range(len(instances)), key=lambda index: -instances[index].score):
        mask = instances[index].binary
        if mask.any() and all(_iou(mask, other) <= SAME_INSTANCE_IOU for _, other in kept):
            kept.append((index, mask))
    return [instances[index] for index in sorted(index for index, _ in kept)]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two masks, bool (H, W), not both empty."""
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))
