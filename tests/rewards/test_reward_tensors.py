"""The rewards in torch: equal to pysodmetrics and to the rewards on arrays, on masks of any kind and size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from py_sod_metrics import Smeasure

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.response import Response
from saliency_r1.rewards.combined import SaliencyReward, reduced
from saliency_r1.rewards.segmenting import CachedSegmenter, Question, compared_size
from saliency_r1.rewards.sis import sis_reward
from saliency_r1.rewards.sod import sod_parts
from saliency_r1.rewards.tensors import overlaps, s_measure, sod_parts_of
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An ellipse anywhere, of any size, cut by the border if it lies there; bool (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    tall, wide = rng.uniform(0.5, height), rng.uniform(0.5, width)
    return ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 <= 1


def pairs(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Soft masks, uint8, and truths, bool, of many sizes: near misses, noise, single pixels, full ones."""
    rng = np.random.default_rng(7)
    for number in range(count):
        height, width = (int(side) for side in rng.integers(2, 90, 2))
        truth = blob(rng, height, width)
        if number % 8 == 0:
            truth = np.zeros((height, width), bool)
            truth[rng.integers(height), rng.integers(width)] = True
        shifted = np.roll(truth, tuple(rng.integers(-4, 5, 2)), (0, 1))
        strength, noise = ((1, 0), (0.8, 0.1), (0.5, 0.4), (0, 1))[number % 4]
        soft = strength * shifted + noise * rng.random((height, width))
        yield np.rint(255 * soft.clip(0, 1)).astype(np.uint8), truth


def test_200_pairs_equal_pysodmetrics() -> None:
    library, compared = Smeasure(), 0
    for mask, truth in pairs(240):
        expected = library.cal_sm(mask / 255, truth)
        if np.isnan(expected):  # the library divides by the pixels of an empty quarter
            assert truth[-1].any() or truth[:, -1].any()
            continue
        found = s_measure(torch.from_numpy(mask), torch.from_numpy(truth))
        assert float(found) == pytest.approx(np.clip(expected, 0, 1), abs=1e-6)
        compared += 1
    assert compared >= 200


@pytest.mark.parametrize("truth", ["empty", "full", "last row"])
@pytest.mark.parametrize("mask", ["empty", "full", "flat", "noise"])
def test_the_edges_are_defined(mask: str, truth: str) -> None:
    inside = np.zeros((30, 40), bool)
    inside[{"empty": slice(0, 0), "full": slice(None), "last row": slice(-1, None)}[truth]] = True
    noise = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    grey = {"empty": 0 * noise, "full": 0 * noise + 255, "flat": 0 * noise + 77, "noise": noise}[mask]
    found = float(s_measure(torch.from_numpy(grey), torch.from_numpy(inside)))
    assert 0 <= found <= 1
    if truth != "last row":
        assert found == pytest.approx(Smeasure().cal_sm(grey / 255, inside), abs=1e-6)


def test_parts_equal_those_of_arrays() -> None:
    nothing = np.zeros((20, 20), bool)
    both = [(nothing.astype(np.uint8), nothing), (255 - nothing.astype(np.uint8), nothing)]
    for mask, truth in [*pairs(60), *both, (both[0][0], ~nothing)]:
        expected = sod_parts(mask / 255, truth)
        if not np.isnan(expected).any():
            found = sod_parts_of(torch.from_numpy(mask), torch.from_numpy(truth))
            assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_overlaps_of_instances() -> None:
    rng = np.random.default_rng(1)
    truths = np.stack([blob(rng, 60, 80) for _ in range(3)])
    masks = np.stack([truths[2], truths[0], np.zeros((60, 80), bool), truths[1] & truths[2]])
    found = overlaps(torch.from_numpy(masks.astype(np.uint8) * 255), torch.from_numpy(truths))
    assert found[0, 2] == found[1, 0] == 1
    assert not found[2].any()
    expected = (masks[3] & truths[1]).sum() / (masks[3] | truths[1]).sum()
    assert float(found[3, 1]) == pytest.approx(expected)


# Masks of a reduced size.


def test_a_reduced_truth_is_what_is_covered_by_half_and_never_vanishes() -> None:
    truth = np.zeros((400, 600), bool)
    truth[100:302, 60:240] = True
    small = reduced(truth, (100, 150))
    assert small.sum() == pytest.approx(truth.sum() / 16, rel=0.02)
    assert np.array_equal(reduced(truth, truth.shape), truth)
    for row, column in ((399, 599), (0, 0), (205, 333)):
        point = np.zeros((400, 600), bool)
        point[row, column] = True
        for size in ((100, 150), (10, 15)):
            places = np.argwhere(reduced(point, size))
            assert places.tolist() == [[row * size[0] // 400, column * size[1] // 600]]


def test_the_size_at_which_masks_are_compared() -> None:
    assert compared_size(960, 1280, None) == (960, 1280)
    assert compared_size(960, 1280, 320) == (240, 320)
    assert compared_size(100, 50, 320) == (100, 50)
    assert compared_size(5000, 3, 320) == (320, 1)


def scene(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> tuple[Image.Image, list[np.ndarray]]:
    image = Image.new("RGB", size, (40, 120, 60))
    masks = []
    for index, box in enumerate(boxes):
        ImageDraw.Draw(image).ellipse(box, fill=((200, 30, 30), (240, 200, 40), (30, 40, 220))[index])
        mask = Image.new("1", size)
        ImageDraw.Draw(mask).ellipse(box, fill=1)
        masks.append(np.asarray(mask))
    return image, masks


@pytest.fixture(scope="module")
def nano() -> NanoSegmenter:
    return NanoSegmenter.from_pretrained(device="cpu")


@pytest.mark.parametrize("mirrored", [False, True])
def test_rewards_on_reduced_masks_stay_near(nano: NanoSegmenter, mirrored: bool) -> None:
    image, masks = scene((640, 480), (80, 100, 260, 330), (350, 200, 560, 420))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    asked = {
        task: PromptExample(
            "scene", task, task.spec.prompt(), ("a.png",), (tuple(map(encode, masks)),), mirrored
        )
        for task in Task
    }
    texts = {
        Task.SOD: Response("Why.", ("the red ball",), "rg").text,
        Task.SIS: Response("Why.", ("the red ball", "the yellow ball"), "ins").text,
        Task.COSOD: Response("Why.", ("the ball",), "rg").text,
    }
    full, small = (
        SaliencyReward(CachedSegmenter(nano, longest=longest)).score(
            [*texts.values()], [asked[task] for task in texts], [[image]] * 3
        )
        for longest in (None, 256)
    )
    assert [one.reward for one in small] == pytest.approx([one.reward for one in full], abs=0.02)
    assert max(one.reward for one in full) > 0.3
    [expected] = CachedSegmenter(nano).segment(
        [Question("a", image, ("the red ball", "the yellow ball"), instances=True)]
    )
    truths = [mask[:, ::-1] for mask in masks] if mirrored else masks
    assert full[1].parts["reward/sis/matching"] == pytest.approx(
        sis_reward(list(expected.probabilities), truths), abs=1e-6
    )


def test_a_mask_of_another_size_is_an_error_before_it_is_decoded(nano: NanoSegmenter) -> None:
    image, masks = scene((64, 48), (8, 8, 30, 30))
    asked = PromptExample("scene", Task.SOD, "What?", ("a.png",), (tuple(map(encode, masks)),))
    reward = SaliencyReward(CachedSegmenter(nano, longest=32))
    with pytest.raises(SaliencyError, match="a mask of 64x48 pixels for a photo of 32x24"):
        reward.score([Response("", ("the ball",), "rg").text], [asked], [[image.resize((32, 24))]])
