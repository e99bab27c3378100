"""Masks of one image: ground truth, probabilities, overlap and connected parts."""

from __future__ import annotations

import math

import numpy as np

from saliency_r1.morphology import label

THRESHOLD = 127
"""A mask's pixel belongs to the object if its grey value is above this."""

BOUNDARY = 0.02
"""Width of a mask's boundary in Cheng et al., CVPR 2021, as a share of the picture's diagonal."""


def as_truth(mask: np.ndarray) -> np.ndarray:
    """Convert a ground truth mask to bool (H, W).

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
    """Convert a predicted mask to float32 (H, W) in [0, 1].

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
    """Check that a prediction and its ground truth have the same size.

    Raises:
        ValueError: if they do not.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask: shape {mask.shape}, expected the ground truth's {truth.shape}")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks, bool (H, W); 1 if both are empty."""
    either = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / either if either else 1.0


def boundary_iou(first: np.ndarray, second: np.ndarray, distance: float = BOUNDARY) -> float:
    """Return the boundary IoU of two masks (Cheng et al., CVPR 2021): how well their edges agree.

    A mask's boundary is the band of its own pixels that lie within d pixels of its contour, where d is the
    rounded share of the diagonal, at least 1. Distances are chessboard distances, and the picture's edge
    counts as a contour, both as in the authors' code.

    Args:
        first: bool (H, W).
        second: bool (H, W), of the same shape.
        distance: d as a share of the picture's diagonal, above 0.

    Returns:
        0 to 1; 1 where both masks are empty.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> square = np.zeros((100, 100), bool)
        >>> square[20:80, 20:80] = True
        >>> boundary_iou(square, square)
        1.0
        >>> round(boundary_iou(square, np.roll(square, 1, axis=1)), 2)
        0.71
    """
    if first.shape != second.shape:
        raise ValueError(f"masks: {first.shape} and {second.shape}, expected one shape")
    pixels = max(1, round(distance * math.hypot(*first.shape)))
    return float(iou(_band(first, pixels), _band(second, pixels)))


def connected_parts(mask: np.ndarray, least: float = 0.01) -> list[np.ndarray]:
    """Return the connected parts of a mask, bool (H, W) each; diagonal neighbours connect.

    Args:
        mask: bool (H, W).
        least: share of the picture that a part must cover; smaller parts are dropped.
    """
    labels, count = label(mask)
    parts = (labels == number for number in range(1, count + 1))
    return [part for part in parts if part.mean() >= least]


def _checked(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"mask: shape {mask.shape}, expected (H, W)")
    if mask.dtype.kind == "f" and not (mask.min() >= 0 and mask.max() <= 1):  # also for NaN
        raise ValueError(f"mask: floats from {mask.min():g} to {mask.max():g}, expected 0 to 1")
    return mask


def _band(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return the pixels of a bool mask that an erosion by so many pixels removes."""
    import cv2

    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)
