"""Sentences about the names of instances are left out if the answer contradicts them."""

from __future__ import annotations

import pytest

from saliency_r1.language.name_claims import name_of, wrong_name_spans

TWO_NAMES = ("the left dog", "the cat on the right")
ONE_NAME = ("the first dog from the left", "the small brown dog", "the dog at the bottom")
SOME = ("the left dog", "the right dog", "the cat")


def left(claim: str, expressions: tuple[str, ...]) -> str:
    answer = "".join(f"<ins>{each}</ins>" for each in expressions)
    text = f"<think>Some stand out: they do. {claim} The rest is background.</think><answer>{answer}</answer>"
    for first, last in reversed(wrong_name_spans(text)):
        text = text[:first] + text[last:]
    assert text.endswith(f" The rest is background.</think><answer>{answer}</answer>")
    return text


@pytest.mark.parametrize(
    ("claim", "true"),
    [
        ("They differ in name.", [TWO_NAMES]),
        ("Each has a name of its own.", [TWO_NAMES]),
        ("They share a name and differ in place and order.", [ONE_NAME]),
        ("Of one name, they differ in size.", [ONE_NAME]),
        ("Those of one name differ in place.", [SOME, ONE_NAME]),
        ("Those that share a name differ in order.", [SOME, ONE_NAME]),
        ("One is larger than the other.", [TWO_NAMES, ONE_NAME, SOME]),
    ],
)
def test_a_claim_stays_if_the_answer_bears_it_out(claim: str, true: list[tuple[str, ...]]) -> None:
    for expressions in (TWO_NAMES, ONE_NAME, SOME):
        assert (claim in left(claim, expressions)) == (expressions in true)


def test_with_one_instance_nothing_is_judged() -> None:
    assert "differ in name" in left("They differ in name.", ("the dog",))


@pytest.mark.parametrize(
    "text", ["", "<answer><ins>the dog</ins><ins>the dog</ins></answer>", "They differ in name.", "<think>"]
)
def test_a_text_without_reasoning_stays(text: str) -> None:
    assert wrong_name_spans(text) == []


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("the right orange", "orange"),
        ("the orange cat", "cat"),
        ("The second-largest dog", "second-largest dog"),
        ("the dish of guacamole in the centre", "dish"),
        ("the middle", "middle"),
    ],
)
def test_the_name_is_what_is_neither_place_nor_size_nor_colour(expression: str, name: str) -> None:
    assert name_of(expression) == name
