"""A response that repeats words, lacks a noun or changes the name of its thing is found out."""

from __future__ import annotations

import pytest

from saliency_r1.language.garbled import is_garbled


def response(first: str, conclusion: str, answer: str, rest: str = "") -> str:
    thought = f"What stands out is {first}, which is small. So the answer is {conclusion}{rest}."
    return f"<think>{thought}</think><answer><rg>{answer}</rg></answer>"


@pytest.mark.parametrize("rest", ["", ", and the rest is background"])
def test_one_name_throughout_is_right(rest: str) -> None:
    assert not is_garbled(response("the dog", "the dog", "the dog", rest))
    assert not is_garbled(response("the dog", "the dog on the left", "the dog on the left", rest))
    assert not is_garbled(response("the cup of tea", "the cup of tea", "the cup of tea", rest))


@pytest.mark.parametrize(
    ("first", "conclusion", "answer"),
    [
        ("the large large large in the centre", "the ram", "the ram"),
        ("the daisy", "the large piggy", "the daisy"),
        ("the ram", "the brown partridge", "the brown partridge"),
        ("the cat", "the dog", "the dog"),
        ("the in the centre", "the dog", "the dog"),
    ],
)
def test_other_names_and_words_said_twice_are_not(first: str, conclusion: str, answer: str) -> None:
    assert is_garbled(response(first, conclusion, answer))


def test_several_instances_may_have_several_names() -> None:
    text = "<think>Two: the dog; the cat.</think><answer><ins>the dog</ins><ins>the cat</ins></answer>"
    assert not is_garbled(text)
    assert is_garbled(text.replace("the cat.", "the cat cat."))


def test_an_answer_without_reasoning_is_right() -> None:
    assert not is_garbled("<answer><rg>the dog</rg></answer>")
    assert not is_garbled("<think></think><answer><rg>the dog</rg></answer>")
    assert not is_garbled("<answer></answer>")
