"""Which masks are instances of their own, and how they are scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from saliency_r1.result import Instance
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.sis import (
    SAME_INSTANCE_IOU,
    disjoint_instances,
    distinct_instances,
    instance_score,
    mean_probability,
    part_off,
    scored_instances,
    share_out,
)

MASKS = st.lists(arrays.arrays(np.float32, (3, 4), elements=st.sampled_from([0, 0.25, 0.5, 1])), max_size=6)


def test_of_two_equal_masks_the_surer_one_stays_in_its_place() -> None:
    left, right = np.zeros((4, 8), np.float32), np.zeros((4, 8), np.float32)
    left[:, :4] = 1
    right[:, 4:] = 1
    instances = [
        Instance("a", left, 0.2),
        Instance("b", right, 0.5),
        Instance("c", left, 0.7),
        Instance("empty", np.zeros((4, 8), np.float32), 0.9),
    ]
    assert [instance.expression for instance in distinct_instances(instances)] == ["b", "c"]


def boxes(*columns: int) -> np.ndarray:
    """A mask, (4, 12), of one column-wide boxes."""
    mask = np.zeros((4, 12), np.float32)
    mask[:, list(columns)] = 1
    return mask


def test_what_is_left_goes_to_the_expression_that_is_likeliest_there() -> None:
    left, mid, right = boxes(0, 1), boxes(4, 5), boxes(8, 9)
    instances = [
        Instance("left", left, 0.9),
        Instance("second from the left", left + 0.3 * mid, 0.7),
        Instance("unseen", 0.2 * right, 0.4),
    ]
    salient = 0.8 * (left + mid + right)
    found = share_out(instances, lambda: salient)
    assert [one.expression for one in found] == ["left", "second from the left", "unseen"]
    for one, place, score in zip(found, (left, 0.8 * mid, 0.8 * right), (0.9, 0.56, 0.32), strict=True):
        assert np.allclose(one.mask, place)
        assert one.score == pytest.approx(score)


def test_where_nothing_is_left_two_names_of_one_thing_are_one() -> None:
    one, speck = boxes(0, 1), np.zeros((40, 40), np.float32)
    names = [Instance("a", one, 0.9), Instance("b", one, 0.5)]
    assert share_out(names, lambda: one) == distinct_instances(names)
    large = np.zeros((40, 40), np.float32)
    large[:10], speck[30, 30:32] = 1, 1  # under a hundredth
    names = [Instance("a", large, 0.9), Instance("b", large, 0.5)]
    assert [each.expression for each in share_out(names, lambda: large + speck)] == ["a"]


def test_what_is_salient_is_asked_for_only_if_needed() -> None:
    def never() -> np.ndarray:
        raise AssertionError

    apart = [Instance("a", boxes(0), 0.9), Instance("b", boxes(5), 0.5)]
    assert share_out(apart, never) == apart
    assert share_out([], never) == []


@given(MASKS, arrays.arrays(np.float32, (3, 4), elements=st.sampled_from([0, 0.5, 1])))
def test_sharing_out_adds_only_what_was_free(masks: list, salient: np.ndarray) -> None:
    instances = [Instance(str(index), mask, index / 10) for index, mask in enumerate(masks)]
    kept = {one.expression for one in distinct_instances(instances)}
    taken = np.zeros((3, 4), bool)
    for one in distinct_instances(instances):
        taken |= one.binary
    for one in share_out(instances, lambda: salient):
        if one.expression in kept:
            assert np.array_equal(one.mask, masks[int(one.expression)])
        else:
            assert one.area
            assert not (one.binary & (taken | (salient < 0.5))).any()
            taken |= one.binary


def test_masks_that_overlap_less_are_two() -> None:
    whole, part = np.ones((10, 10), np.float32), np.ones((10, 10), np.float32)
    part[:3] = 0  # IoU 0.7 exactly
    assert len(distinct_instances([Instance("a", whole, 0.5), Instance("b", part, 0.5)])) == 2


@given(MASKS, st.randoms(use_true_random=False))
def test_what_is_kept_differs_and_what_is_left_out_has_a_reason(masks: list, random: object) -> None:
    instances = [Instance(str(number), mask, random.random()) for number, mask in enumerate(masks)]
    kept = distinct_instances(instances)

    def iou(one: Instance, other: Instance) -> float:
        return (one.binary & other.binary).sum() / (one.binary | other.binary).sum()

    assert [one for one in instances if one in kept] == kept
    for index, one in enumerate(kept):
        assert one.area
        assert all(iou(one, other) <= SAME_INSTANCE_IOU for other in kept[:index])
    for one in instances:
        if one not in kept and one.area:
            assert any(iou(one, other) > SAME_INSTANCE_IOU and other.score >= one.score for other in kept)
    assert distinct_instances(kept) == kept


@given(MASKS)
def test_what_is_visible_of_different_things_does_not_overlap(masks: list) -> None:
    instances = [Instance(str(number), mask, 0.5) for number, mask in enumerate(masks)]
    parts = disjoint_instances(instances)
    assert all(part.area for part in parts)
    owners = sum(((part.mask > 0).astype(int) for part in parts), np.zeros((3, 4), int))
    assert owners.max(initial=0) <= 1
    highest = np.max([np.zeros((3, 4), np.float32), *(one.mask for one in instances)], axis=0)
    kept = np.max([np.zeros((3, 4), np.float32), *(part.mask for part in parts)], axis=0)
    assert np.array_equal(kept >= 0.5, highest >= 0.5)
    assert np.array_equal(kept[kept > 0], highest[kept > 0])


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
)
def test_a_score_is_a_probability_and_grows_with_the_segmenters(
    mask: np.ndarray, own: float, confidence: float | None
) -> None:
    score = instance_score(mask, own, confidence)
    assert 0 <= score <= instance_score(mask, 1.0, confidence) <= 1
    inside = mean_probability(mask)
    assert inside == 0 if (mask < 0.5).all() else 0.5 <= inside <= 1


def test_the_mean_probability_is_that_inside_the_mask() -> None:
    assert mean_probability(np.array([[0.4, 0.5, 0.75]], np.float32)) == pytest.approx(0.625)


def test_each_expression_is_scored_with_its_own_parts() -> None:
    masks = np.stack([np.full((2, 2), value, np.float32) for value in (0.6, 0.9)])
    found = Segmentation(masks, np.array([0.25, 0.75], np.float32))
    seen = []

    def score(mask: np.ndarray, own: float, confidence: float | None) -> float:
        seen.append((float(mask[0, 0]), own, confidence))
        return 0.125

    instances = scored_instances(["a", "b"], found, [0.5, None], score)
    assert seen == [(pytest.approx(0.6), 0.25, 0.5), (pytest.approx(0.9), 0.75, None)]
    assert [(one.expression, one.score) for one in instances] == [("a", 0.125), ("b", 0.125)]


def test_a_mask_of_two_parts_is_two_things_where_two_were_named() -> None:
    pair, dot = np.zeros((10, 10), np.float32), np.zeros((10, 10), np.float32)
    pair[1:4, 1:5] = pair[6:8, 2:5] = 0.9
    dot[9, 9] = 0.9
    left, right, tiny = (
        Instance("left", pair, 0.8),
        Instance("right", pair * 0.9, 0.6),
        Instance("dot", dot, 1),
    )
    first, second = part_off([left], [left, right])
    assert (first.expression, second.expression, second.score) == ("left", "right", 0.8)
    assert np.array_equal(first.mask[:5], pair[:5])
    assert not first.mask[5:].any()
    assert np.array_equal(first.mask + second.mask, pair)
    assert part_off([left], [left]) == [left]  # no more were named
    assert part_off([tiny], [tiny, left]) == [tiny]  # nothing to cut
    assert [one.expression for one in part_off([left], [right, left, tiny])] == ["left", "dot"]
