"""Where single samples begin to win: the formula against a bandit on which all of it is known."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from repository import module_at


@pytest.fixture(scope="module")
def crossover() -> ModuleType:
    return module_at("benchmarks/crossover.py")


def test_the_formula_at_its_limits(crossover: ModuleType) -> None:
    assert crossover.crossing(0, 0, 8) == pytest.approx(1 / 7)
    assert crossover.crossing(0.4, 0, 8) < 0  # no baseline suffices
    assert crossover.crossing(0.4, 0.5, 8) > crossover.crossing(0.4, 0.1, 8) > 0
    assert crossover.crossing(0.1, 0.1, 8) > crossover.crossing(2, 0.1, 8)


def test_what_is_known_of_the_bandit_is_what_is_drawn(crossover: ModuleType) -> None:
    bandit, rng = crossover.Bandit.drawn(8), np.random.default_rng(3)
    prompts, answers = bandit.draw(rng, 200_000, 1)
    answers = answers[:, 0]
    scores = np.eye(8)[answers] - bandit.probabilities[prompts]
    samples = (bandit.rewards[prompts, answers] - bandit.means[prompts])[:, None] * scores
    assert np.allclose(samples.mean(0), bandit.gradients.mean(0), atol=0.01)
    apart = samples - bandit.gradients[prompts]
    assert (apart**2).sum(1).mean() == pytest.approx(bandit.within, rel=0.02)
    spread = ((bandit.gradients[prompts] - bandit.gradients.mean(0)) ** 2).sum(1).mean()
    assert spread / bandit.within == pytest.approx(bandit.between, rel=0.02)
    missed = 0.7 * rng.standard_normal(len(prompts))
    assert ((missed[:, None] * scores) ** 2).sum(1).mean() / bandit.within == pytest.approx(
        bandit.error(0.7), rel=0.02
    )


def test_the_distance_of_a_single_sample_is_v_times_one_and_e_and_t(crossover: ModuleType) -> None:
    bandit, rng = crossover.Bandit.drawn(8), np.random.default_rng(0)
    for deviation in (0.0, 1.0):
        expected = bandit.within * (1 + bandit.error(deviation) + bandit.between)
        assert bandit.distance(rng, 100_000, 1, deviation) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("group", "answers", "p"), [(8, 12, 0.0), (8, 5, 0.4), (16, 12, 0.4)])
def test_the_formula_is_within_a_tenth_of_what_is_measured(
    crossover: ModuleType, group: int, answers: int, p: float
) -> None:
    bandit = crossover.Bandit.drawn(answers)
    found = crossover.measured_crossing(bandit, p, group, updates=80_000)
    assert crossover.crossing(p, bandit.between, group) == pytest.approx(found, rel=0.1)
