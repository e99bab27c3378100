"""The reward for true statements: what it pays, and where it has no say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.true_instances import encode
from saliency_r1.language.faithfulness import faithfulness
from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
from saliency_r1.rewards.faithfulness import faithful
from saliency_r1.rewards.own import load_reward
from saliency_r1.rewards.segmenting import CachedSegmenter
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task
from saliency_r1.writing.rl_prompts import without_reasoning

SHAPE = (60, 90)
BALL = np.zeros(SHAPE, bool)
BALL[20:40, 5:25] = True
PICTURE = Image.fromarray(np.where(BALL[..., None], (220, 30, 30), (30, 160, 40)).astype(np.uint8))


def question(task: Task = Task.SOD, *masks: np.ndarray) -> PromptExample:
    return PromptExample(
        "ball", task, task.spec.prompt(), ("ball.png",), (tuple(encode(mask) for mask in masks),)
    )


def reward(reasoning: str, asked: PromptExample, picture: Image.Image = PICTURE) -> float | None:
    tag = asked.task.spec.tag
    text = f"<think>{reasoning}</think><answer><{tag}>the ball</{tag}></answer>"
    [value] = faithful([text], [str(asked.task)], [asked], [[picture]])
    return value


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("", 1 / 2),
        ("It is a ball.", 1 / 2),
        ("It is on the left.", 2 / 3),
        ("It is on the right.", 1 / 3),
        ("It is not on the right.", 2 / 3),
        ("It is on the left and mostly red.", 3 / 4),
        ("It is on the left and mostly blue.", 2 / 4),
        ("It is on the left, mostly red, on a green background.", 4 / 5),
        ("It is on the left, mostly blue, on a green background.", 3 / 5),
    ],
)
def test_true_statements_pay_and_false_ones_cost(reasoning: str, expected: float) -> None:
    assert reward(reasoning, question(Task.SOD, BALL)) == pytest.approx(expected)


def test_the_truth_is_mirrored_with_the_photo() -> None:
    mirrored = replace(question(Task.SOD, BALL), mirrored=True)
    flipped = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert reward("It is on the right.", mirrored, flipped) == pytest.approx(2 / 3)
    assert reward("It is on the left.", mirrored, flipped) == pytest.approx(1 / 3)


def test_where_it_has_no_say() -> None:
    claim = "It is on the left."
    assert reward(claim, question(Task.SIS, BALL)) is None
    assert reward(claim, question(Task.COSOD, BALL)) is None
    assert reward(claim, question(Task.SOD)) is None  # nothing is salient
    assert reward(claim, without_reasoning(question(Task.SOD, BALL))) is None
    assert faithful(["on the left"], ["sod"], [question(Task.SOD, BALL)], [[PICTURE]]) == [None]


def test_a_recipe_finds_it_and_it_changes_the_reward() -> None:
    own = {"faithful": (load_reward("saliency_r1.rewards:faithful"), 0.2)}
    judge = SaliencyReward(CachedSegmenter(NanoSegmenter.from_pretrained()), RewardWeights(), own)
    asked = question(Task.SOD, BALL)
    answer = "<answer><rg>the red object</rg></answer>"
    texts = [f"<think>It is on the {side}.</think>{answer}" for side in ("left", "right")]
    true, false = judge.score(texts, [asked] * 2, [[PICTURE]] * 2)
    assert true.parts["reward/own/faithful"] == pytest.approx(2 / 3)
    # The same mask: they differ by the statement alone.
    assert true.reward - false.reward == pytest.approx(0.2 * (1 / 3) / 1.3, abs=1e-4)


def test_what_the_embedded_policy_says_of_a_real_photo() -> None:
    photo = Image.fromarray(skimage.data.coffee())
    result = SaliencyPipeline.from_pretrained()(photo)
    asked = question(Task.SOD, result.mask >= 0.5)
    checked = faithfulness(result.reasoning, photo, result.mask)
    assert checked.total > 0
    expected = (checked.holds + 1) / (checked.total + 2)
    assert faithful([result.text], ["sod"], [asked], [[photo]]) == [pytest.approx(expected)]
