"""CoSOD reward: how well the masks of a group of images fit the object that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saliency_r1.rewards.sod import sod_parts, weighted_mean


def cosod_parts(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> tuple[float, float]:
    """Means over the group of IoU and S-measure, each in [0, 1]; see `sod_parts`.

    An image without the object has an empty truth: a mask on it, a false alarm, gets 0 there, none gets 1.

    Args:
        masks: one (H, W) for each image, in the images' order; sizes may differ from image to image.
        truths: likewise, of each image.

    Raises:
        ValueError: if there are no images, as many masks as truths are not given, or as of `sod_parts`.
    """
    if not masks or len(masks) != len(truths):
        raise ValueError(f"{len(masks)} masks and {len(truths)} truths: expected one of each for each image")
    both = [sod_parts(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
    overlap, structure = (float(np.mean(values)) for values in zip(*both, strict=True))
    return overlap, structure


def cosod_reward(
    masks: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    iou_weight: float = 0.5,
    s_measure_weight: float = 0.5,
) -> float:
    """Mean over the group of `sod_reward`.

    Args:
        masks: masks, see `cosod_parts`.
        truths: true masks, see `cosod_parts`.
        iou_weight: weight of the IoU, see `weighted_mean`.
        s_measure_weight: weight of the S-measure, see `weighted_mean`.

    Returns:
        In [0, 1]. The order of the images does not matter.

    Raises:
        ValueError: see `cosod_parts` and `weighted_mean`.

    Example:
        >>> here, nothing = np.ones((4, 4), bool), np.zeros((4, 4), bool)
        >>> here[2:] = False
        >>> round(cosod_reward([here, here], [here, nothing]), 6)
        0.5
    """
    return weighted_mean(*cosod_parts(masks, truths), iou_weight, s_measure_weight)
