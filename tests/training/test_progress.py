"""What a training run prints: one line a report, with the metrics that matter, none of transformers' own."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")

from saliency_r1.training.progress import ProgressLines, readable


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("step")]


def test_a_report_is_one_line_of_the_metrics_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressLines("policy", 100)
    progress.report(5, {"reward": 0.8421, "loss": -0.01, "parse_rate": 1.0, "grad_norm": 3.2}, 1.26)
    progress.report(10, {"loss": 1.5, "mean_token_accuracy": 0.5}, 0.5)
    progress.report(25, {"validation/reward": 0.9, "validation/length": 31.0})
    progress.report(30, {"learning_rate": 0.1})
    progress.end()
    assert lines(capsys.readouterr().out) == [
        "step 5 of 100  reward .842, right form 1.000, 1.3 s a step",
        "step 10 of 100  loss 1.500, right tokens .500, 0.5 s a step",
        "step 25 of 100  held out: reward .900",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, ".500"), (1.0, "1.000"), (-0.25, "-.250"), (10.25, "10.250"), (0.9999, "1.000")]
)
def test_numbers_have_one_style(value: float, text: str) -> None:
    assert readable(value) == text
