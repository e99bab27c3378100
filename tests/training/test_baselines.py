"""Baselines: running means of tasks and values of prompts, alone, in the trainer, and after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from bandit_training import PROMPTS, FixedCompletions, config, policy, prompts, share_of_a, tokenizer
from saliency_r1.training.reinforcement.baselines import (
    KEPT_A_VISIT,
    PRIOR_VISITS,
    TASK_MEMORY,
    Baselines,
    RunningMeans,
)
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer, prompt_key


def test_older_numbers_weigh_less_and_those_of_one_call_the_same() -> None:
    means = RunningMeans(kept=0.5)
    means.add(["a", "a", "b"], [1.0, 3.0, math.nan])
    assert (means.mean("a"), means.weight("a")) == (2.0, 2.0)
    assert math.isnan(means.mean("b"))
    means.add(["a"], [8.0])
    assert means.mean("a") == pytest.approx((0.5 * 4 + 8) / 2)
    assert means.mean("a", without=8.0) == 2.0


def test_a_sample_has_no_part_in_its_own_baseline() -> None:
    rng = np.random.default_rng(0)
    for kind in ("task", "prompt"):
        ours, theirs = Baselines(kind), Baselines(kind)
        for _ in range(3):
            rewards, confidences = rng.random((2, 6)).tolist()
            changed = [rewards[0] + 5, *rewards[1:]]
            tasks, asked = list("xxyyyx"), list("abcdef")
            (one, *_), _ = ours.of(tasks, asked, rewards, confidences)
            (two, *_), _ = theirs.of(tasks, asked, changed, confidences)
            assert one == pytest.approx(two) or math.isnan(one) == math.isnan(two) is True
            theirs.remember(json.loads(json.dumps(ours.to_dict())))


def test_tasks_are_apart_and_their_means_are_found() -> None:
    rng = np.random.default_rng(1)
    baselines = Baselines("task")
    for _ in range(200):
        tasks = ["sod", "sis"] * 8
        rewards = [(0.8 if task == "sod" else 0.3) + 0.1 * rng.standard_normal() for task in tasks]
        confidences = [0.9 if task == "sod" else 0.6 for task in tasks]
        taken, centres = baselines.of(tasks, tasks, rewards, confidences)
    assert taken == pytest.approx([0.8, 0.3] * 8, abs=0.03)
    assert centres == pytest.approx([0.9, 0.6] * 8)


def test_prompts_that_are_visited_again_get_a_value_of_their_own() -> None:
    baselines = Baselines("prompt")
    worth = {"easy": 0.9, "hard": 0.1}
    for _ in range(16):
        (easy, hard), _ = baselines.of(["sod"] * 2, list(worth), list(worth.values()), [0.5, 0.5])
    weight = sum(KEPT_A_VISIT**visit for visit in range(15))
    of_task = [baselines.rewards.mean("sod", without=each) for each in worth.values()]
    assert easy == pytest.approx((weight * 0.9 + PRIOR_VISITS * of_task[0]) / (weight + PRIOR_VISITS))
    assert easy > 0.8 > 0.2 > hard
    (unknown,), _ = baselines.of(["sod"], ["new"], [0.0], [0.5])
    assert unknown == pytest.approx(np.mean(list(worth.values())), abs=0.02)


def test_what_is_not_known_or_not_judged() -> None:
    baselines = Baselines("task")
    taken, centres = baselines.of(["a", "b", "b"], ["1", "2", "3"], [0.5, math.nan, 0.7], [0.1, 0.2, 0.3])
    assert math.isnan(taken[0])
    assert taken[1] == 0.7
    assert math.isnan(taken[2])
    assert centres[1] == 0.3  # the confidence of what was not judged counts in no mean
    assert Baselines("none").of(["a"], ["1"], [0.5], [0.9]) == ([0.0], [0.0])


def rows(count: int = 8) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": " ".join(PROMPTS[: 1 + number % 4]), "number": number, "task": "ab"[number % 2]}
            for number in range(count)
        ]
    )


def trained(output: Path, **changes: Any) -> FixedCompletions:
    settings = config(output, per_device_train_batch_size=8, **changes)
    trainer = FixedCompletions(
        policy(4.0), share_of_a, settings, train_dataset=rows(), processing_class=tokenizer()
    )
    trainer.model.train()
    return trainer


@pytest.mark.parametrize("baseline", ["task", "prompt"])
def test_advantages_equal_an_independent_recomputation(tmp_path: Path, baseline: str) -> None:
    batch = list(rows())
    plain = trained(tmp_path, brake=1.0)  # r - c
    rewards_alone = trained(tmp_path, confidence="none")
    gap = plain._generate_and_score_completions(batch)["advantages"]
    reward = rewards_alone._generate_and_score_completions(batch)["advantages"]
    confidence = reward - gap
    brake = 0.25
    trainer = trained(tmp_path, baseline=baseline, brake=brake)
    first = trainer._generate_and_score_completions(batch)["advantages"]
    second = trainer._generate_and_score_completions(batch)["advantages"]
    kept = (1 - 1 / TASK_MEMORY) ** 4  # four of the task in the batch
    words = [row["prompt"] for row in batch]
    for row in range(8):
        alike = [other for other in range(8) if other % 2 == row % 2]
        others = [other for other in alike if other != row]
        expected = (reward[row] - reward[others].mean()) - brake * (
            confidence[row] - confidence[others].mean()
        )
        assert first[row].item() == pytest.approx(expected.item(), abs=1e-5)

        def centre(values: torch.Tensor, alike: list[int] = alike, others: list[int] = others) -> float:
            return float((kept * values[alike].sum() + values[others].sum()) / (kept * 4 + 3))

        taken = centre(reward)
        if baseline == "prompt":
            seen = [other for other in range(8) if words[other] == words[row]]  # two rows ask the same
            value, weight = float(reward[seen].mean()), float(len(seen))
            taken = (weight * value + PRIOR_VISITS * taken) / (weight + PRIOR_VISITS)
        expected = (reward[row] - taken) - brake * (confidence[row] - centre(confidence))
        assert second[row].item() == pytest.approx(expected.item(), abs=1e-5)


def test_without_a_baseline_the_brake_alone_weighs_the_confidence(tmp_path: Path) -> None:
    batch = list(rows())
    full, half, none = (
        trained(tmp_path, brake=brake)._generate_and_score_completions(batch)["advantages"]
        for brake in (1.0, 0.5, 0.0)
    )
    assert torch.allclose(half, (full + none) / 2, atol=1e-6)


def test_a_batch_is_scaled_by_its_own_deviation(tmp_path: Path) -> None:
    batch = list(rows())
    plain = trained(tmp_path)._generate_and_score_completions(batch)["advantages"]
    scaled = trained(tmp_path, scale_rewards="batch")._generate_and_score_completions(batch)["advantages"]
    assert torch.allclose(scaled, plain / (plain.std(correction=0) + 1e-4), atol=1e-5)
    assert scaled.std(correction=0).item() == pytest.approx(1, abs=0.01)


def test_evaluation_neither_uses_nor_changes_what_is_remembered(tmp_path: Path) -> None:
    trainer = trained(tmp_path, baseline="task")
    trainer._generate_and_score_completions(list(rows()))
    before = json.dumps(trainer._baselines.to_dict())
    trainer.model.eval()
    trainer._generate_and_score_completions(list(rows()))
    assert json.dumps(trainer._baselines.to_dict()) == before


def test_a_run_that_goes_on_knows_what_it_knew(tmp_path: Path) -> None:
    def run(output: Path, steps: int, **changes: Any) -> CGPOTrainer:
        return FixedCompletions(
            policy(4.0),
            share_of_a,
            config(
                output, baseline="prompt", max_steps=steps, save_strategy="steps", save_steps=2, **changes
            ),
            train_dataset=prompts(8),
            processing_class=tokenizer(),
        )

    whole = run(tmp_path / "whole", 4)
    whole.train()
    run(tmp_path / "cut", 2).train()
    resumed = run(tmp_path / "cut", 4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert resumed._baselines.to_dict() == whole._baselines.to_dict()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_prompts_are_told_apart_by_name_and_words() -> None:
    message = [{"role": "user", "content": "What?"}]
    keys = [
        prompt_key({"prompt": "What?"}),
        prompt_key({"prompt": "Which?"}),
        prompt_key({"prompt": message, "name": "a"}),
        prompt_key({"prompt": message, "name": "b"}),
    ]
    assert len(set(keys)) == 4
    assert keys[2] == prompt_key({"prompt": message, "name": "a", "task": "sod"})
