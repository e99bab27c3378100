"""The comparison of CGPO and GRPO: what it reads from the logs of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from repository import module_at
from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return module_at("benchmarks/race_tables.py")


@pytest.fixture(scope="module")
def benchmark(tables: ModuleType) -> ModuleType:
    return module_at("benchmarks/cgpo_vs_grpo.py")  # which imports the tables


def run(seed: int, rewards: list[float], prompts: float, tokens: float, ece: float = 0.1) -> dict[str, Any]:
    """A run of 100 seconds that was validated at equal times."""
    steps = len(rewards) - 1
    points = [
        {
            "seconds": 100.0 * number / steps,
            "prompts": prompts * number / steps,
            "tokens": tokens * number / steps,
            "reward": reward,
            "reward/sod": reward,
            "reward/sis": rewards[0],
            "named": reward,
            "right": 0.6 if number == 0 else 0.6 - ece / 10,
            **{
                f"confidence_{kind}/{name}": 0.2 if number == 0 else ece
                for kind in ("all", "answer")
                for name in ("gap", "ece")
            },
        }
        for number, reward in enumerate(rewards)
    ]
    names = ("data", "rollout", "scoring", "reward", "segmenter", "update")
    return {
        "seed": seed,
        "settings": {
            "start": "s",
            "seconds": 100.0,
            "prompts": 16,
            "questions": 9,
            "cores": 2,
            "learning_rate": 1e-5,
        },
        "points": points,
        "start": {"SOD S": 0.7},
        "end": {"SOD S": 0.8},
        "phases": {**dict.fromkeys((f"time/{name}" for name in names), 0.9), "time/step": 4.0},
        "steps": 10,
        "peak_mb": 900.0,
    }


def test_numbers_are_met_or_not(tables: ModuleType) -> None:
    good = {0: run(0, [0.5, 0.7, 0.8], 1000, 50_000, ece=0.05)}
    bad = {0: run(0, [0.5, 0.55, 0.45], 300, 20_000, ece=0.3)}
    group = {0: run(0, [0.5, 0.6], 100, 40_000)}
    worse = {0: run(0, [0.5, 0.55], 100, 40_000, ece=0.01)}
    runs = {"task, brake 0": good, "CGPO": bad, "GRPO, G = 8, unscaled": group, "GRPO, G = 8": worse}
    found = tables.numbers(runs)
    cells = {(what, method): (measured, met) for what, method, _, measured, met in found}

    def cell(begin: str, method: str) -> tuple[str, str]:
        [value] = [
            value for (what, whose), value in cells.items() if what.startswith(begin) and whose == method
        ]
        return value

    expected = {
        # .6 is reached at 25 of 100 s, by the better group at its end.
        "seconds to the best of GRPO, G = 8, unscaled": (
            ("0.25", "yes"),
            ("–, not reached in 1 seeds", "no"),
        ),
        "worst change": (("+0.0000", "yes"), ("-0.0500", "no")),
        "change of the share of right names": (("-0.0050", "yes"), ("-0.0300", "no")),
        "ECE": (("0.0500", "yes"), ("0.3000", "no")),
        "share of a step": (("10.0 %", "no"), ("10.0 %", "no")),
    }
    for begin, both in expected.items():
        assert (cell(begin, "task, brake 0"), cell(begin, "CGPO")) == both, begin
    assert len(found) == 2 * len(expected)


def test_the_best_is_looked_for_among_methods_of_the_most_seeds(tables: ModuleType) -> None:
    lucky = {0: run(0, [0.5, 0.9], 9, 9)}
    whole = {seed: run(seed, [0.5, 0.6], 9, 9) for seed in (0, 1)}
    runs = {"CGPO": whole, "REINFORCE": lucky, "GRPO, G = 8": lucky}
    assert tables.best_of(runs, grouped=False) == "CGPO"
    assert tables.best_of(runs, grouped=True) == "GRPO, G = 8"
    assert tables.best_of({"CGPO": whole}, grouped=True) is None


def test_what_is_there_is_compared_at_equal_seconds_prompts_and_tokens(tables: ModuleType) -> None:
    runs = {
        "CGPO": {seed: run(seed, [0.5, 0.7, 0.8], 1000, 50_000) for seed in (0, 2)},
        "GRPO, G = 8": {0: run(0, [0.5, 0.6], 250, 100_000)},
    }
    text = tables.tables(runs)
    assert "| after 100 seconds | after 250 prompts | after 50000 tokens |" in text
    assert "| CGPO | 2 | 0.5000 | 0.8000 ± 0.000 | 0.6000 | 0.8000 | 0.800, 0.800 |" in text
    assert "| GRPO, G = 8 | 1 | 0.5000 | 0.6000 ± 0.000 | 0.6000 | 0.5500 | 0.600 |" in text
    assert "| CGPO | 0.5000 → 0.8000 | 0.6000 → 0.5900 |" in text
    assert "| CGPO | 0.5000 → 0.5000 | 0.5000 → 0.8000 | +0.0000 |" in text
    alone = tables.tables({"CGPO": runs["CGPO"]})
    assert "≤ 1.0" not in alone  # nothing to compare with
    assert "| worst change of a task's reward | CGPO |" in alone


def test_every_method_is_a_recipe_and_no_other_methods_runs_are_its_own(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    fields = {
        **dict.fromkeys(CGPORecipe.__dataclass_fields__),
        **dict.fromkeys(GRPORecipe.__dataclass_fields__),
    }
    for method, changes in benchmark.METHODS.items():
        assert set(changes) <= set(fields)
        (tmp_path / benchmark.run_file(tmp_path, method, 12).name).write_text(
            json.dumps({"method": method, "seed": 12, "settings": {}})
        )
    found = benchmark.load(tmp_path)
    assert {method: each[12]["method"] for method, each in found.items()} == {
        method: method for method in benchmark.METHODS
    }


def test_only_runs_of_the_same_settings_are_compared(benchmark: ModuleType, tmp_path: Path) -> None:
    one, other = run(0, [0.5, 0.6], 9, 9), run(1, [0.5, 0.6], 9, 9)
    for each in (one, other):
        path = benchmark.run_file(tmp_path, "GRPO, G = 4", each["seed"])
        path.write_text(json.dumps(each))
    assert benchmark.load(tmp_path) == {"GRPO, G = 4": {0: one, 1: other}}
    other["settings"]["seconds"] = 7.0
    path.write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r"grpo-g4-1.json is of another seconds: give the same"):
        benchmark.load(tmp_path)


def test_curves_are_drawn_of_unfinished_comparisons(tables: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tables.draw({"REINFORCE": {1: run(1, [0.5, 0.4, 0.6], 9, 9)}}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
