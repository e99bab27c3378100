"""The benchmark of gradients, on choices of one token whose gradients are known."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from repository import module_at

PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
REWARDS = np.array([[1.0, 0.4, 0.0], [0.2, 0.9, 0.6]])


@pytest.fixture(scope="module")
def signal() -> ModuleType:
    module_at("benchmarks/crossover.py")  # which it imports
    return module_at("benchmarks/gradient_signal.py")


def samples(signal: ModuleType, each: int = 1000) -> Any:
    """Answers of two prompts, drawn as often as they are probable, with the gradients of their logits."""
    prompt, chosen = [], []
    for number, row in enumerate(PROBABILITIES):
        for answer, share in enumerate(row):
            chosen += [answer] * round(share * each)
            prompt += [number] * round(share * each)
    prompts, answers = np.array(prompt), np.array(chosen)
    gradients = np.zeros((len(prompts), 2, 3))
    gradients[np.arange(len(prompts)), prompts] = np.eye(3)[answers] - PROBABILITIES[prompts]
    flat = gradients.reshape(len(prompts), -1)
    confidence = PROBABILITIES[prompts, answers]
    half = np.arange(len(prompts)) % 2 == 1
    reward = REWARDS[prompts, answers]
    return signal.Samples(
        prompts, np.zeros_like(prompts), half, reward, confidence, confidence, flat @ flat.T
    )


def expected_gradient(worth: np.ndarray) -> np.ndarray:
    """Of the mean over the prompts of an answer's worth, by the logits."""
    mean = (PROBABILITIES * worth).sum(1, keepdims=True)
    return (PROBABILITIES * (worth - mean) / 2).ravel()


def test_signal_is_the_projection_of_the_expected_gradient(signal: ModuleType) -> None:
    drawn = samples(signal)
    everything = np.ones(len(drawn.prompt), bool)
    reference = expected_gradient(REWARDS)
    for name, worth in (
        ("REINFORCE: r", REWARDS),
        ("r less its group's mean", REWARDS),
        ("CGPO: r - c", REWARDS - PROBABILITIES),
        ("the brake alone: -c", -PROBABILITIES),
    ):
        found, _ = signal.signal_and_noise(drawn, signal.METHODS[name](drawn), everything)
        expected = expected_gradient(worth) @ reference / np.linalg.norm(reference)
        assert found == pytest.approx(expected, abs=0.003), name


def test_a_constant_is_noise_and_no_signal(signal: ModuleType) -> None:
    drawn = samples(signal)
    everything = np.ones(len(drawn.prompt), bool)
    signals, noises = zip(
        *(
            signal.signal_and_noise(drawn, advantage, everything)
            for advantage in (np.ones(len(drawn.prompt)), drawn.reward, drawn.reward + 1)
        ),
        strict=True,
    )
    assert abs(signals[0]) < 0.003
    assert signals[1] == pytest.approx(signals[2], abs=0.003)
    assert noises[2] > 1.5 * noises[1]


def test_e_and_t_are_those_of_the_known_policy(signal: ModuleType) -> None:
    drawn = samples(signal)
    means = (PROBABILITIES * REWARDS).sum(1)
    squares = 1 - 2 * PROBABILITIES + (PROBABILITIES**2).sum(1, keepdims=True)
    weighed = PROBABILITIES * squares
    within = (weighed * (REWARDS - means[:, None]) ** 2).sum(1).mean()
    assert drawn.within == pytest.approx(within, rel=0.01)
    # REINFORCE: (r - mu + mu)^2 weighed, the cross term included.
    noise = (weighed * REWARDS**2).sum(1).mean()
    assert drawn.error(drawn.reward) == pytest.approx(noise / within - 1, rel=0.02)
    assert drawn.error(drawn.less_mean(drawn.reward, drawn.prompt)) == pytest.approx(0, abs=0.02)
    gradients = np.zeros((2, 2, 3))
    gradients[[0, 1], [0, 1]] = PROBABILITIES * (REWARDS - means[:, None])
    flat = gradients.reshape(2, 6)
    own, across = (flat**2).sum(1).mean(), flat[0] @ flat[1]
    assert drawn.between == pytest.approx((own - across) / (within - own), rel=0.05)


def test_the_crossing_is_told_with_p_and_t(signal: ModuleType) -> None:
    text = signal.crossing_of(replace(samples(signal, 100), shared=0.4), 8)
    assert text.startswith("p = 0.40, t = ")
    assert text.count("\n| ") == 2 + len(signal.SINGLE)


def test_the_table_compares_with_grpo(signal: ModuleType) -> None:
    rows = signal.table(samples(signal, 100)).splitlines()
    assert len([row for row in rows if row.startswith("| ")]) == 2 + len(signal.METHODS)
    assert "| 1.0 × |" in next(row for row in rows if row.startswith("| GRPO"))
    assert next(row for row in rows if row.startswith("| the brake")).endswith("| – |")
