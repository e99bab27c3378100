"""Masks of one image: as truth and as probability, their overlap, their connected parts."""

from __future__ import annotations

import numpy as np

THRESHOLD = 127
"""A mask's pixel belongs to the object if its grey value is above this."""


def as_truth(mask: np.ndarray) -> np.ndarray:
    """A ground truth mask as bool (H, W).

    Args:
        mask: (H, W); bool, or integers that are 0 and 1 or 0 to 255 (then over 127 is inside), or floats in
            [0, 1] (at least 0.5 is inside).

    Raises:
        ValueError: for another shape, or floats outside [0, 1].
    """
    mask = _checked(mask)
    if mask.dtype == bool:
        return mask
    if mask.dtype.kind == "f":
        return mask >= 0.5
    return mask > (THRESHOLD if mask.max(initial=0) > 1 else 0)


def as_probability(mask: np.ndarray) -> np.ndarray:
    """A predicted mask as float32 (H, W) in [0, 1].

    Args:
        mask: (H, W); floats in [0, 1], bool, or integers that are 0 and 1 or 0 to 255.

    Raises:
        ValueError: for another shape, or floats outside [0, 1].
    """
    mask = _checked(mask)
    if mask.dtype.kind == "f" or mask.dtype == bool:
        return mask.astype(np.float32)
    return mask.astype(np.float32) / np.float32(255 if mask.max(initial=0) > 1 else 1)


def check_pair(mask: np.ndarray, truth: np.ndarray) -> None:
    """Check that a prediction and its ground truth are of one size.

    Raises:
        ValueError: if they are not.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask: shape {mask.shape}, expected the ground truth's {truth.shape}")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks, bool (H, W); 1 if both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def connected_parts(mask: np.ndarray, least: float = 0.01) -> list[np.ndarray]:
    """Return the connected parts of a mask, bool (H, W) each; diagonal neighbours connect.

    Args:
        mask: bool (H, W).
        least: share of the picture that a part must cover; smaller parts are left out.
    """
    from scipy.ndimage import label

    labels, count = label(mask, np.ones((3, 3), int))
    parts = (labels == number for number in range(1, count + 1))
    return [part for part in parts if part.mean() >= least]


def _checked(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"mask: shape {mask.shape}, expected (H, W)")
    if mask.dtype.kind == "f" and not (mask.min() >= 0 and mask.max() <= 1):  # also for NaN
        raise ValueError(f"mask: floats from {mask.min():g} to {mask.max():g}, expected 0 to 1")
    return mask
