"""Salient instances out of the masks of several expressions: which are the same, and how sure each is."""

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

    Two masks nearly equal each other if their IoU is over 0.7 (both taken at 0.5). The order stays.
    """
    return [instances[index] for index in _distinct(instances)]


def share_out(instances: Sequence[Instance], salient: Callable[[], np.ndarray]) -> list[Instance]:
    """`distinct_instances`, and those that it leaves out where something salient is left for them.

    The policy saw so many things; where an expression finds nothing, or finds what another one names, it was
    meant for one of those that no expression found. Each takes the connected part of what is salient and
    nobody's yet where its own probability is highest in the mean, the highest score first; its score is
    multiplied with the mean of `salient` there. Parts under a hundredth of the picture do not count.

    Args:
        instances: of one image, one an expression.
        salient: gives the probabilities of all that is salient there, float32 (H, W); asked only if needed.
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
    """The instances without overlap, as what is visible of different things has none.

    A pixel stays with the instance of the highest probability there, the first of equal ones, and has
    probability 0 in the others. One that keeps no pixel of at least 0.5 is dropped. The order stays.
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
    """The instances, and those that were named beside them, cut from masks that hold several parts.

    Where fewer things were found than named, one mask may be of two of them. The largest connected part that
    stands beside a larger one of its mask goes to the missing one of the highest score; so on while there are
    both. Parts under a hundredth of the picture do not count. Both have the score of the mask. The order is
    that of `named`.

    Args:
        instances: what was found, of different pixels.
        named: one an expression, with that expression.
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
    """What an answer's expressions found, each thing once and no pixel twice.

    `share_out`, then `disjoint_instances`, then `part_off`; arguments as of `share_out`.
    """
    return part_off(disjoint_instances(share_out(named, salient)), named)


def _distinct(instances: Sequence[Instance]) -> list[int]:
    kept: list[tuple[int, np.ndarray]] = []
    for index in sorted(range(len(instances)), key=lambda index: -instances[index].score):
        mask = instances[index].binary
        if mask.any() and all(iou(mask, other) <= SAME_INSTANCE_IOU for _, other in kept):
            kept.append((index, mask))
    return sorted(index for index, _ in kept)
