"""CoSOD reward: how well the masks of a group fit the shared object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saliency_r1.rewards.sod import sod_parts, weighted_mean


def cosod_parts(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the means of IoU and S-measure over the group, each in [0, 1]; see `sod_parts`.

    An image without the object has an empty truth: there a mask (a false alarm) gets 0, and an empty one 1.

    Args:
        masks: a mask (H, W) for each image, in order; sizes may differ between images.
        truths: the true mask of each image.

    Raises:
        ValueError: if there are no images, if the numbers of masks and truths differ, or see `sod_parts`.
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
    """Return the mean of `sod_reward` over the group.

    Args:
        masks: the masks of the images, see `cosod_parts`.
        truths: the true ones.
        iou_weight: weight of the IoU, see `weighted_mean`.
        s_measure_weight: weight of the S-measure.

    Returns:
        The reward, in [0, 1]. The order of the images does not matter.

    Raises:
        ValueError: see `cosod_parts` and `weighted_mean`.

    Example:
        >>> here, nothing = np.ones((4, 4), bool), np.zeros((4, 4), bool)
        >>> here[2:] = False
        >>> round(cosod_reward([here, here], [here, nothing]), 6)
        0.5
    """
    return weighted_mean(*cosod_parts(masks, truths), iou_weight, s_measure_weight)
