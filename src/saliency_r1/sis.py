"""Turn the masks of several expressions into salient instances: which are the same, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from saliency_r1.masks import connected_parts, iou
from saliency_r1.result import Instance
from saliency_r1.segmenters.base import Segmentation

SAME_INSTANCE_IOU = 0.7

Score: TypeAlias = Callable[[np.ndarray, float, float | None], float]
"""The type of `instance_score`; another score may be tried instead."""


def instance_score(probabilities: np.ndarray, segmenter_score: float, confidence: float | None) -> float:
    """Return the score that ranks instances, in [0, 1]: the IoU that the segmenter expects of the mask.

    Only this function decides it; `benchmarks/nano_tasks.py --rows scenes` compares the candidates.

    Args:
        probabilities: the mask, float32 (H, W) in [0, 1].
        segmenter_score: the segmenter's own score of the mask, in [0, 1].
        confidence: the policy's confidence in the expression, in [0, 1]; None if unknown.
    """
    return segmenter_score


def mean_probability(probabilities: np.ndarray) -> float:
    """Return the mean of the probabilities of at least 0.5, in [0, 1]; 0 if there are none.

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
    """Return an instance for each expression, in order.

    Args:
        expressions: N expressions.
        found: their masks on one image.
        confidences: the policy's confidence in each expression.
        score: the function that scores an instance.
    """
    return [
        Instance(expression, mask, score(mask, float(own), confidence))
        for expression, mask, own, confidence in zip(
            expressions, found.probabilities, found.scores, confidences, strict=True
        )
    ]


def distinct_instances(instances: Sequence[Instance]) -> list[Instance]:
    """Drop instances that are empty, or that nearly equal another one with a higher score.

    Two masks are nearly equal if their IoU is over 0.7 (both at 0.5). The order is kept.
    """
    return [instances[index] for index in _distinct(instances)]


def share_out(instances: Sequence[Instance], salient: Callable[[], np.ndarray]) -> list[Instance]:
    """Return `distinct_instances`, and those that it drops if a salient region is left for them.

    The policy's count is kept. If an expression finds nothing, or finds what another one names, it was meant
    for an object that no expression found. It gets the connected part of the salient regions not yet assigned
    to an instance where its own mean probability is highest; the highest score is served first. Its score is
    multiplied by the mean of `salient` there. Parts under a hundredth of the picture do not count.

    Args:
        instances: instances of one image, one for each expression.
        salient: returns the probabilities of everything salient, float32 (H, W); called only if needed.
    """
    chosen = {index: instances[index] for index in _distinct(instances)}
    left = sorted(set(range(len(instances))) - chosen.keys(), key=lambda index: -instances[index].score)
    if not left:
        return list(instances)
    everything = salient()
    free = everything >= 0.5
    for one in chosen.values():
        free &= ~one.binary
    parts = connected_parts(free)
    for index in left[: len(parts)]:
        own = instances[index]
        part = max(parts, key=lambda part: (own.mask[part].mean(), np.count_nonzero(part)))
        parts = [other for other in parts if other is not part]
        mask = np.where(part, everything, np.float32(0))
        chosen[index] = replace(own, mask=mask, score=own.score * float(everything[part].mean()))
    return [chosen[index] for index in sorted(chosen)]


def disjoint_instances(instances: Sequence[Instance]) -> list[Instance]:
    """Remove overlaps, because the visible parts of different objects do not overlap.

    A pixel stays with the instance that has the highest probability there, the first of equal ones, and gets
    probability 0 in the others. An instance without a pixel of at least 0.5 is dropped. The order is kept.
    """
    if not instances:
        return []
    highest = instances[0].mask.copy()
    owner = np.zeros(highest.shape, np.uint16)
    for index, instance in enumerate(instances):
        owner[instance.mask > highest] = index
        np.maximum(highest, instance.mask, out=highest)
    parts = (
        replace(one, mask=np.where(owner == index, one.mask, np.float32(0)))
        for index, one in enumerate(instances)
    )
    return [part for part in parts if part.area]


def part_off(instances: Sequence[Instance], named: Sequence[Instance]) -> list[Instance]:
    """Add named instances that are missing, by splitting masks that have several parts.

    If fewer objects were found than named, one mask may cover two of them. The largest connected part beside
    a larger one of the same mask goes to the missing instance with the highest score; this is repeated while
    there are both. Parts under a hundredth of the picture do not count. Both get the score of the mask. The
    order is that of `named`.

    Args:
        instances: the found instances, without overlap.
        named: an instance for each expression.
    """
    found, missing = list(instances), []
    unseen = Counter(one.expression for one in instances)
    for one in named:
        unseen[one.expression] -= 1
        if unseen[one.expression] < 0:
            missing.append(one)
    for one in sorted(missing, key=lambda one: -one.score):
        parts = [
            (np.count_nonzero(part), index, part)
            for index, whole in enumerate(found)
            for part in sorted(connected_parts(whole.binary), key=np.count_nonzero)[:-1]
        ]
        if not parts:
            break
        _, index, part = max(parts, key=lambda each: each[0])
        whole = found[index]
        found[index] = replace(whole, mask=np.where(part, np.float32(0), whole.mask))
        found.append(
            replace(whole, expression=one.expression, mask=np.where(part, whole.mask, np.float32(0)))
        )
    places = {one.expression: place for place, one in enumerate(named)}
    return sorted(found, key=lambda one: places[one.expression])


def visible_instances(named: Sequence[Instance], salient: Callable[[], np.ndarray]) -> list[Instance]:
    """Return what an answer's expressions found: each object once, and no pixel twice.

    It applies `share_out`, `disjoint_instances` and `part_off`; the arguments are those of `share_out`.
    """
    return part_off(disjoint_instances(share_out(named, salient)), named)


def _distinct(instances: Sequence[Instance]) -> list[int]:
    kept: list[tuple[int, np.ndarray]] = []
    for index in sorted(range(len(instances)), key=lambda index: -instances[index].score):
        mask = instances[index].binary
        if mask.any() and all(iou(mask, other) <= SAME_INSTANCE_IOU for _, other in kept):
            kept.append((index, mask))
    return sorted(index for index, _ in kept)
