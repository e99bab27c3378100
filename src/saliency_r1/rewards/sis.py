"""SIS reward: how well a set of masks fits the salient instances, matched one to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from saliency_r1.masks import as_probability, as_truth, check_pair


def sis_reward(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Return the summed IoU of the best one-to-one matching, over the larger of the two numbers of masks.

    The matching is the Hungarian method on IoU. A second mask of one instance has no partner and lowers the
    mean, as does a missed instance. The order of either side does not matter.

    Args:
        masks: a mask (H, W) for each expression, in any form that `as_probability` takes; an empty one counts
            as an answer.
        truths: a mask (H, W) for each salient instance, in any form that `as_truth` takes; empty ones are
            ignored.

    Returns:
        The reward, in [0, 1]: 1 if all are found exactly, and if there are none on either side.

    Raises:
        ValueError: if shapes differ, or values are out of range.

    Example:
        >>> left, right = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
        >>> left[:, :2], right[:, 2:] = True, True
        >>> sis_reward([right, left], [left, right]), sis_reward([left, left], [left])
        (1.0, 0.5)
    """
    found = [as_probability(mask) >= 0.5 for mask in masks]
    wanted = [truth for truth in map(as_truth, truths) if truth.any()]
    for mask in found:
        check_pair(mask, (wanted or found)[0])
    if not found or not wanted:
        return float(not found and not wanted)
    predicted = np.stack(found).reshape(len(found), -1).astype(np.float32)
    true = np.stack(wanted).reshape(len(wanted), -1).astype(np.float32)
    both = predicted @ true.T
    either = predicted.sum(1)[:, None] + true.sum(1)[None] - both
    return matched(both / either)


def matched(overlap: np.ndarray) -> float:
    """Return the summed IoU of the best one-to-one matching over the larger side; 1 if both are empty.

    Args:
        overlap: float (P, T), the IoU of each mask with each true instance.
    """
    if not overlap.size:
        return float(not any(overlap.shape))
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return float(overlap[rows, columns].sum(dtype=np.float64) / max(overlap.shape))
