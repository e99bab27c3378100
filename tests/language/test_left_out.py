"""What is refuted or said twice is left out of a reasoning, and nothing else."""

from __future__ import annotations

import pytest

from saliency_r1.cue_limits import TOLD
from saliency_r1.language.left_out import REFUTED, left_out_spans
from saliency_r1.response import parse_strict

TEXT = (
    "<think>What stands out is the ball, which is lighter than the surroundings. It is small and is mostly"
    " red. It touches no edge. The left side is darker, but nothing there is set apart. Everything else is"
    " background, so the answer is the ball on the left.</think>"
    "<answer><rg>the ball on the left</rg></answer>"
)


def left(*refuted: tuple[str, str], value: float = -1.0, text: str = TEXT) -> str:
    spans = left_out_spans(text, [value if key in refuted else 1.0 for key in TOLD])
    for first, last in reversed(spans):
        text = text[:first] + text[last:]
    return text


def test_what_holds_stays() -> None:
    assert left() == TEXT
    assert left(*TOLD, value=REFUTED + 0.01) == TEXT


@pytest.mark.parametrize(
    ("refuted", "gone"),
    [
        (("contrast", "lighter"), ", which is lighter than the surroundings"),
        (("size", "small"), " It is small and is mostly red."),
        (("colour", "red"), " It is small and is mostly red."),
        (("place", "no edge"), " It touches no edge."),
        (("rest", "left darker"), " The left side is darker, but nothing there is set apart."),
    ],
)
def test_a_sentence_or_the_first_ones_clause_is_left_out(refuted: tuple[str, str], gone: str) -> None:
    assert gone in TEXT
    assert left(refuted) == TEXT.replace(gone, "")


def test_the_conclusion_and_the_answer_stay() -> None:
    short = left(*TOLD)
    assert short == (
        "<think>What stands out is the ball. Everything else is background, so the answer is the ball on the"
        " left.</think><answer><rg>the ball on the left</rg></answer>"
    )
    assert parse_strict(short, "sod").expressions == ("the ball on the left",)


def test_what_is_not_measured_stays() -> None:
    text = TEXT.replace("It touches no edge.", "It is sharper than the background.")
    assert "It is sharper than the background." in left(*TOLD, text=text)


def test_a_sentence_that_only_repeats_is_left_out() -> None:
    repeated = TEXT.replace(" The left side", " It keeps clear of the edges. The left side")
    assert left(text=repeated) == TEXT


@pytest.mark.parametrize(
    "sentence",
    [" It keeps clear of the edges and has a strong contrast.", " It is not small.", " It stands there."],
)
def test_a_sentence_that_says_more_stays(sentence: str) -> None:
    more = TEXT.replace(" The left side", f"{sentence} The left side")
    assert left(text=more) == more


def test_what_was_left_out_may_be_said_again() -> None:
    again = TEXT.replace(" It touches no edge.", " It is lighter than its surroundings.")
    key = ("size", "small")
    assert "It is lighter" not in left(text=again)
    assert (
        left(key, text=TEXT.replace(" It touches", " It is mostly red. It touches")).count("mostly red") == 1
    )


@pytest.mark.parametrize(
    "text", ["", "<answer><rg>the small ball</rg></answer>", "<think>It is small", "no tags"]
)
def test_a_text_without_reasoning_stays(text: str) -> None:
    assert left(*TOLD, text=text) == text
