"""SOD reward: how well a mask fits the salient object, by IoU and S-measure."""

from __future__ import annotations

import numpy as np
from py_sod_metrics import Smeasure

from saliency_r1.masks import as_probability, as_truth, check_pair, iou

_S_MEASURE = Smeasure()


def sod_parts(mask: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return IoU (at 0.5) and S-measure (of the probabilities) of a mask, each in [0, 1].

    The S-measure (Fan et al., ICCV 2017, by pysodmetrics) of an empty mask is near one half, and so is that
    of a small false alarm on a photo where nothing is salient. But an empty mask where something is salient,
    and a
    mask where nothing is, are wrong answers: both parts are then 0. Both are 1 if both sides are empty.

    Args:
        mask: (H, W) probabilities in [0, 1], or any form that `as_probability` takes.
        truth: (H, W), any form that `as_truth` takes; empty if nothing is salient.

    Raises:
        ValueError: if the shapes differ, or values are out of range.
    """
    probability, inside = as_probability(mask), as_truth(truth)
    check_pair(probability, inside)
    binary = probability >= 0.5
    if binary.any() != inside.any():
        return 0.0, 0.0
    if not inside.any():
        return 1.0, 1.0
    return iou(binary, inside), float(np.clip(_S_MEASURE.cal_sm(probability, inside), 0, 1))


def weighted_mean(overlap: float, structure: float, iou_weight: float, s_measure_weight: float) -> float:
    """Combine the parts of SOD or CoSOD to one number in [0, 1].

    Args:
        overlap: IoU, in [0, 1].
        structure: S-measure, in [0, 1].
        iou_weight, s_measure_weight: at least 0, not both 0; their sum need not be 1.

    Raises:
        ValueError: if weights are out of range.
    """
    total = iou_weight + s_measure_weight
    if min(iou_weight, s_measure_weight) < 0 or not total > 0:
        raise ValueError(f"weights {iou_weight} and {s_measure_weight}: expected at least 0, and not both 0")
    return min(1.0, (iou_weight * overlap + s_measure_weight * structure) / total)


def sod_reward(
    mask: np.ndarray, truth: np.ndarray, *, iou_weight: float = 0.5, s_measure_weight: float = 0.5
) -> float:
    """Return the weighted mean of IoU and S-measure; see `sod_parts` for these and for empty masks.

    Args:
        mask: a mask, see `sod_parts`.
        truth: the true one.
        iou_weight: weight of the IoU, see `weighted_mean`.
        s_measure_weight: weight of the S-measure.

    Returns:
        The reward, in [0, 1]: 1 for the truth itself, and for two empty masks.

    Raises:
        ValueError: see `sod_parts` and `weighted_mean`.

    Example:
        >>> truth = np.zeros((40, 60), bool)
        >>> truth[10:30, 20:40] = True
        >>> round(sod_reward(truth, truth), 6), sod_reward(np.zeros((40, 60)), truth)
        (1.0, 0.0)
    """
    return weighted_mean(*sod_parts(mask, truth), iou_weight, s_measure_weight)
