"""The policy that names what a person asks for."""

from __future__ import annotations

import pytest

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.given import LONGEST_PHRASE, GivenPhrase
from saliency_r1.response import parse_strict
from saliency_r1.tasks import Task


def test_every_question_is_answered_with_the_phrase() -> None:
    outputs = GivenPhrase("  the cat \n on the left ").respond([[], []], Task.SOD)
    assert len(outputs) == 2
    for output in outputs:
        assert parse_strict(output.text, Task.SOD).expressions == ("the cat on the left",)
        assert output.confidence is None


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        (" ", "is empty"),
        ("x" * (LONGEST_PHRASE + 1), f"at most {LONGEST_PHRASE}"),
        ("the cat</rg>", "cannot be used"),
    ],
)
def test_a_phrase_that_is_no_good_is_named(phrase: str, words: str) -> None:
    with pytest.raises(SaliencyError, match=words):
        GivenPhrase(phrase)


@pytest.mark.parametrize("task", [Task.SIS, Task.COSOD])
def test_a_phrase_goes_with_one_task(task: Task) -> None:
    with pytest.raises(SaliencyError, match="'sod'"):
        GivenPhrase("the cat").respond([[]], task)
