"""Calibration: does a model's confidence predict how good its mask is?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 10
GOOD_IOU = 0.5


@dataclass(frozen=True)
class Calibration:
    """Confidence compared with IoU over a set of photos.

    Attributes:
        count: number of photos with a confidence.
        ece: expected calibration error (Guo et al., ICML 2017, with IoU instead of accuracy): over 10
            equal bins of confidence, the gap between mean confidence and mean IoU, weighted by the photos in
            the bin.
        auroc: probability that a photo with IoU > 0.5 has a higher confidence than one without (ties count
            half); None if all photos are of one kind.
        aurc: area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017), the risk being 1 - IoU.
        bins: count, mean confidence and mean IoU of each bin that holds photos.
        coverage, risk: share of the photos that are kept, the most confident first, and their mean 1 - IoU.
    """

    count: int
    ece: float
    auroc: float | None
    aurc: float
    bins: tuple[tuple[int, float, float], ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, for JSON."""
        return asdict(self)


def calibrate(confidence: np.ndarray, iou: np.ndarray) -> Calibration:
    """Compare confidence and IoU.

    Args:
        confidence: float (N,) in [0, 1].
        iou: float (N,) in [0, 1], of the same photos.

    Raises:
        ValueError: if there are no photos, or the shapes differ.

    Example:
        >>> found = calibrate(np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.8, 0.1]))
        >>> found.ece, found.auroc
        (0.0, 1.0)
    """
    if confidence.shape != iou.shape or confidence.ndim != 1 or not confidence.size:
        raise ValueError(f"expected confidence and iou (N,) of N > 0, got {confidence.shape} and {iou.shape}")
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        (int(inside.sum()), float(confidence[inside].mean()), float(iou[inside].mean()))
        for inside in (place == number for number in range(BINS))
        if inside.any()
    ]
    ece = sum(count * abs(sure - good) for count, sure, good in bins) / confidence.size
    coverage = np.arange(1, confidence.size + 1) / confidence.size
    risk = _risk(confidence, iou)
    shown = np.unique(np.linspace(0, confidence.size - 1, min(200, confidence.size)).round().astype(int))
    return Calibration(
        count=int(confidence.size),
        ece=float(ece),
        auroc=auroc(confidence, iou > GOOD_IOU),
        aurc=float(risk.mean()),
        bins=tuple(bins),
        coverage=tuple(coverage[shown].tolist()),
        risk=tuple(risk[shown].tolist()),
    )


def _risk(confidence: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Return the mean 1 - IoU of the k most confident photos, for each k; ties share their mean."""
    values, inverse = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(inverse, weights=1 - iou) / np.bincount(inverse)
    counts = np.bincount(inverse, minlength=len(values))
    return np.repeat(mean, counts).cumsum() / np.arange(1, confidence.size + 1)


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the area under the ROC curve by the rank sum of Mann and Whitney; None for a single class."""
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks = (last - (counts - 1) / 2)[inverse]
    del values
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
