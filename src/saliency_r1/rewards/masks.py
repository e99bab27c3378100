"""What the rewards share: sizes that must agree, and IoU."""

from __future__ import annotations

import numpy as np


def check_pair(mask: np.ndarray, truth: np.ndarray) -> None:
    """That a prediction and its ground truth are of one size.

    Raises:
        ValueError: if not.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask: shape {mask.shape}, expected the ground truth's {truth.shape}")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks, bool (H, W); 1 if both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0
