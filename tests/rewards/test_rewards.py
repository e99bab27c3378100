"""Rewards: each by itself, joined, of a user's own, and the fast way to their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.response import Response
from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
from saliency_r1.rewards.cosod import cosod_reward
from saliency_r1.rewards.format import format_reward
from saliency_r1.rewards.own import load_reward
from saliency_r1.rewards.segmenting import CachedSegmenter, Question
from saliency_r1.rewards.sis import sis_reward
from saliency_r1.rewards.sod import sod_reward
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task
from stubs import SegmenterStub

SHAPE = (24, 40)
NOTHING = np.zeros(SHAPE, bool)


def box(x0: int, x1: int, y0: int = 4, y1: int = 20) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


TRUTH = box(8, 24)


class ColourSegmenter(SegmenterStub):
    """Finds the pixels whose strongest channel an expression names; counts what it is asked to do."""

    name = "colour"

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        return photo[..., ("red", "green", "blue").index(expression.split()[-1])] > 200

    def score(self, expression: str) -> float:
        return 0.25 * len(expression.split())


def photo(**boxes: np.ndarray) -> Image.Image:
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    for colour, mask in boxes.items():
        pixels[mask, ("red", "green", "blue").index(colour)] = 255
    return Image.fromarray(pixels)


def question(task: Task, *truths: Sequence[np.ndarray], name: str = "a", mirrored: bool = False) -> Any:
    paths = tuple(f"{name}{number}.png" for number in range(len(truths)))
    masks = tuple(tuple(encode(mask) for mask in group) for group in truths)
    return PromptExample(name, task, task.spec.prompt(), paths, masks, mirrored)


def said(task: Task, *expressions: str) -> str:
    return Response("Why.", expressions, task.spec.tag).text


def rewarder(**options: Any) -> SaliencyReward:
    return SaliencyReward(CachedSegmenter(ColourSegmenter()), **options)


# Format.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        "<answer><rg>red</rg></answer>",
        "<think></think><answer><rg>red</rg>",
        "<think></think><answer><rg>red</rg><rg>blue</rg></answer>",
        "<think></think><answer><ins>red</ins></answer>",
        "<think></think><answer><rg> </rg></answer>",
        "<think></think><answer><rg>red</rg></answer> Yes",
        "<THINK></THINK><answer><rg>red</rg></answer>",
    ],
)
def test_what_is_not_of_the_form_gets_nothing(text: str) -> None:
    assert format_reward(text, "sod") == 0
    [scored] = rewarder().score([text], [question(Task.SOD, [TRUTH])], [[photo(red=TRUTH)]])
    assert (scored.reward, scored.parsed, scored.parts) == (0, False, {})


def test_an_answer_that_names_nothing_is_of_the_form() -> None:
    for task in Task:
        assert format_reward(said(task), task) == 1


# SOD.


def test_perfect_over_partial_over_wrong_over_empty() -> None:
    shifted, beside = box(12, 28), box(28, 38)
    rewards = [sod_reward(mask, TRUTH) for mask in (TRUTH, shifted, beside, NOTHING)]
    assert rewards[0] == pytest.approx(1)
    assert rewards == sorted(rewards, reverse=True)
    assert len(set(rewards)) == 4
    assert rewards[3] == 0


@pytest.mark.parametrize("reward", [sod_reward, lambda mask, truth: cosod_reward([mask], [truth])])
def test_empty_truth(reward: Any) -> None:
    assert reward(NOTHING, NOTHING) == 1
    assert reward(box(0, 1, 0, 1), NOTHING) == 0


@given(st.integers(8, 24), st.integers(8, 24))
@settings(max_examples=60, deadline=None)
def test_sod_grows_with_the_iou_of_nested_masks(first: int, second: int) -> None:
    small, large = sorted((first, second))
    inside = [sod_reward(box(8, end), TRUTH) for end in (small, large)]
    assert inside[0] <= inside[1] + 1e-9
    outside = [sod_reward(box(8, 24 + end - 8), TRUTH) for end in (large, small)]
    assert outside[0] <= outside[1] + 1e-9


def test_masks_may_be_bool_binary_8_bit_or_floats() -> None:
    mask = box(12, 28)
    forms = [
        lambda m: m,
        lambda m: m.astype(np.uint8),
        lambda m: m * np.uint8(255),
        lambda m: m.astype(float),
    ]
    rewards = {sod_reward(form(mask), other(TRUTH)) for form in forms for other in forms}
    assert len(rewards) == 1
    assert len({sis_reward([form(mask)], [other(TRUTH)]) for form in forms for other in forms}) == 1


def test_soft_masks_count_by_their_probabilities() -> None:
    soft = np.where(TRUTH, 0.8, 0.1)
    assert 0.5 < sod_reward(soft, TRUTH) < 1
    assert sod_reward(soft, TRUTH, iou_weight=1, s_measure_weight=0) == 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 4)), "expected the ground truth's"),
        (np.full(SHAPE, 2.0), "expected 0 to 1"),
        (np.full(SHAPE, np.nan), "expected 0 to 1"),
        (np.zeros((*SHAPE, 3)), r"expected \(H, W\)"),
    ],
)
def test_masks_that_cannot_be_judged(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sod_reward(mask, TRUTH)
    with pytest.raises(ValueError, match=message):
        sis_reward([mask], [TRUTH])


# SIS.


def test_sis_matches_one_to_one_whatever_the_order() -> None:
    truths = [box(0, 10), box(12, 22), box(26, 36)]
    masks = [box(27, 36), box(0, 12), box(12, 20)]
    expected = (9 / 10 + 10 / 12 + 8 / 10) / 3
    for order in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        assert sis_reward([masks[i] for i in order], truths) == pytest.approx(expected)
        assert sis_reward(masks, [truths[i] for i in order]) == pytest.approx(expected)


def test_sis_prefers_the_best_matching_to_the_greedy_one() -> None:
    # The first mask fits both truths, the second the first alone: greedy would give the first truth away.
    truths, masks = [box(0, 10), box(6, 18)], [box(0, 14), box(0, 8)]
    overlap = [[10 / 14, 8 / 18], [8 / 10, 2 / 18]]
    assert sis_reward(masks, truths) == pytest.approx((overlap[1][0] + overlap[0][1]) / 2)


def test_sis_punishes_duplicates_misses_and_inventions() -> None:
    left, right = box(0, 10), box(20, 30)
    assert sis_reward([left, right], [left, right]) == 1
    assert sis_reward([left, left], [left]) == 0.5
    assert sis_reward([left, left], [left, right]) == 0.5
    assert sis_reward([left], [left, right]) == 0.5
    assert sis_reward([left, right, NOTHING], [left, right]) == pytest.approx(2 / 3)


def test_sis_without_instances() -> None:
    assert sis_reward([], []) == 1
    assert sis_reward([], [NOTHING]) == 1
    assert sis_reward([TRUTH], []) == 0
    assert sis_reward([], [TRUTH]) == 0
    assert sis_reward([NOTHING], [TRUTH]) == 0


@given(st.integers(9, 24), st.integers(9, 24))
@settings(max_examples=40, deadline=None)
def test_sis_grows_with_the_iou(first: int, second: int) -> None:
    other = box(30, 38)
    small, large = (sis_reward([other, box(8, end)], [TRUTH, other]) for end in sorted((first, second)))
    assert small < large if first != second else small == large


# CoSOD.


def test_cosod_is_the_mean_over_the_group_with_false_alarms() -> None:
    half = box(8, 16)
    scores = [sod_reward(half, TRUTH), 1.0, 0.0]
    masks, truths = [half, NOTHING, TRUTH], [TRUTH, NOTHING, NOTHING]
    assert cosod_reward(masks, truths) == pytest.approx(np.mean(scores))
    assert cosod_reward(masks[::-1], truths[::-1]) == cosod_reward(masks, truths)
    with pytest.raises(ValueError, match="1 masks and 2 truths"):
        cosod_reward(masks[:1], truths[:2])


# Joined.


def test_all_tasks_in_one_batch() -> None:
    left, right = box(0, 10), box(20, 30)
    both = photo(red=left, blue=right)
    texts = [
        said(Task.SOD, "red"),
        said(Task.SIS, "blue", "red"),
        said(Task.COSOD, "blue"),
        said(Task.SIS, "red"),
        said(Task.SOD),
    ]
    questions = [
        question(Task.SOD, [left | right]),
        question(Task.SIS, [left, right]),
        question(Task.COSOD, [right], [left], name="b"),
        question(Task.SIS, [left, right]),
        question(Task.SOD, [], name="c"),
    ]
    images = [[both], [both], [both, photo(red=left)], [both], [photo()]]
    reward = rewarder(weights=RewardWeights(format=0.25))
    logged: list[tuple[str, float]] = []
    rewards = reward(texts, questions, images, log_metric=lambda name, value: logged.append((name, value)))
    qualities = [sod_reward(left, left | right), 1, 0.5, 0.5, 1]
    assert rewards == pytest.approx([(0.25 + quality) / 1.25 for quality in qualities], abs=1e-4)
    assert [value for name, value in logged if name == "reward/sis/matching"] == [1, 0.5]
    assert [value for name, value in logged if name == "reward/cosod/iou"] == [0.5]
    assert sum(name == "parse_rate" for name, _ in logged) == 5
    chat = [[{"role": "assistant", "content": text}] for text in texts]
    assert reward(chat, questions, images) == rewards


def test_images_reach_the_segmenter_in_rgb_order() -> None:
    image = photo(red=TRUTH)
    rewards = rewarder()(
        [said(Task.SOD, "red"), said(Task.SOD, "blue")], [question(Task.SOD, [TRUTH])] * 2, [[image]] * 2
    )
    assert rewards == [1, pytest.approx(0.1 / 1.1, abs=1e-4)]


def test_mirrored_questions_mirror_the_truth() -> None:
    left = box(0, 10)
    asked = question(Task.SOD, [left], mirrored=True)
    assert rewarder()([said(Task.SOD, "red")], [asked], [[photo(red=left[:, ::-1])]]) == [1]


def test_own_rewards_are_weighed_and_may_have_no_say(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def brief(completions, task, **columns):\n"
        "    return [None if t == 'sis' else float(len(c) < 60) for c, t in zip(completions, task)]\n"
    )
    own = {"brief": (load_reward(f"{tmp_path}/mine.py:brief"), 1.0)}
    reward = rewarder(weights=RewardWeights(format=0), own=own)
    texts = [said(Task.SOD, "red"), said(Task.SOD, "the wonderfully large red"), said(Task.SIS, "red")]
    questions = [question(Task.SOD, [TRUTH])] * 2 + [question(Task.SIS, [TRUTH])]
    images = [[photo(red=TRUTH)]] * 3
    assert reward(texts, questions, images) == [1, 0.5, 1]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("brief", "expected package.module:function"),
        ("nowhere.at.all:brief", "cannot be imported"),
        ("missing.py:brief", "no such file"),
        ("json:brief", "has no function 'brief'"),
    ],
)
def test_own_rewards_that_are_not_there(path: str, message: str) -> None:
    with pytest.raises(SaliencyError, match=message) as error:
        load_reward(path)
    assert "\n" not in str(error.value)


def test_own_rewards_out_of_range_are_errors() -> None:
    for returned, message in (([2.0], "expected 0 to 1"), ([1.0, 1.0], "2 values for 1 completions")):
        reward = rewarder(own={"mine": (lambda returned=returned, **_: returned, 1.0)})
        with pytest.raises(SaliencyError, match=message):
            reward([said(Task.SOD, "red")], [question(Task.SOD, [TRUTH])], [[photo()]])


def test_a_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(SaliencyError, match="a mask of 40x24 pixels for a photo of 20x20"):
        rewarder()([said(Task.SOD, "red")], [question(Task.SOD, [TRUTH])], [[Image.new("RGB", (20, 20))]])


def test_weights_must_make_sense() -> None:
    with pytest.raises(ValueError, match="not both 0"):
        RewardWeights(iou=0, s_measure=0)
    with pytest.raises(ValueError, match="at least 0"):
        RewardWeights(format=-1)


# The fast way.


def test_each_image_and_each_pair_is_done_once() -> None:
    frozen = ColourSegmenter()
    cached = CachedSegmenter(frozen)
    image, other = photo(red=TRUTH), photo(blue=TRUTH)
    questions = [
        Question("a", image, ["red", "blue"]),
        Question("a", image, ["red"]),
        Question("b", other, ["red", "red", "the red"]),
        Question("c", other, []),
    ]
    first = cached.segment(questions)
    assert frozen.encoded == 2
    assert sorted(frozen.asked) == ["blue", "red", "red", "the red"]
    assert [one.probabilities.shape for one in first] == [(count, *SHAPE) for count in (2, 1, 3, 0)]
    assert np.array_equal(first[0].probabilities[0], TRUTH)
    assert not first[2].probabilities[0].any()
    assert first[2].scores.tolist() == [0.25, 0.25, 0.5]
    again = cached.segment(questions)
    assert (frozen.encoded, len(frozen.asked)) == (2, 4)
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.probabilities, two.probabilities)
        assert np.array_equal(one.scores, two.scores)
    assert (cached.counts.asked, cached.counts.segmented, cached.counts.encoded) == (12, 4, 2)
    cached.segment([Question("a", image, ["green"])])
    assert frozen.encoded == 2


def test_the_memory_is_bounded_and_the_masks_stay_right() -> None:
    frozen = ColourSegmenter()
    bytes_each = SHAPE[0] * SHAPE[1] * 4  # an encoding, and a mask
    cached = CachedSegmenter(frozen, memory_bytes=2 * bytes_each)
    for number in range(10):
        [found] = cached.segment([Question(number, photo(red=box(0, number + 1)), ["red"])])
        assert np.array_equal(found.probabilities[0], box(0, number + 1))
        assert cached.kept_bytes <= 2 * bytes_each
    cached.segment([Question(9, photo(), ["red"])])
    assert frozen.encoded == 10
    forgetful = CachedSegmenter(frozen, memory_bytes=0)
    for _ in range(2):
        forgetful.segment([Question(0, photo(red=TRUTH), ["red", "blue"])] * 3)
    assert frozen.encoded == 12
    assert forgetful.kept_bytes == 0


def test_more_expressions_than_fit_at_once() -> None:
    frozen = ColourSegmenter()
    cached = CachedSegmenter(frozen)
    texts = [f"{number} red" for number in range(70)]
    [found] = cached.segment([Question("a", photo(red=TRUTH), texts)])
    assert len(found.scores) == 70
    assert frozen.encoded == 1
    assert frozen.asked == texts


def test_the_nano_segmenter_gives_the_same_masks_together_and_apart() -> None:
    segmenter = NanoSegmenter.from_pretrained(device="cpu")
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (height, 50, 3), np.uint8)).resize((50, height))
        for height in (40, 60)
    ]
    texts = [["the dog", "the left ball"], ["the bird"]]
    together = segmenter.segment_many(segmenter.encode_many(images), [*texts], [False, False])
    for image, words, found in zip(images, texts, together, strict=True):
        apart = segmenter.segment(segmenter.encode(image), words)
        assert found.probabilities.shape == (len(words), image.height, image.width)
        np.testing.assert_allclose(found.probabilities, apart.probabilities, atol=1e-4)
        np.testing.assert_allclose(found.scores, apart.scores, atol=1e-4)
    few = segmenter.segment_many(segmenter.encode_many(images), [[], ["a"]], [False, False])
    assert [len(found.scores) for found in few] == [0, 1]
