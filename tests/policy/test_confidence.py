"""How sure a policy is of each of its expressions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import expression_confidences
from saliency_r1.response import Response, parse_lenient
from saliency_r1.tasks import Task


def test_each_expression_has_its_own_confidence() -> None:
    pieces = [
        "<answer>",
        "<ins>",
        "the",
        " dog",
        "</ins>",
        "<ins> </ins>",
        "<ins>a",
        " ball</ins>",
        "</answer>",
    ]
    logprobs = [-9.0, -9.0, -1.0, -3.0, -9.0, -9.0, -0.5, -0.25, -9.0]
    expected = (math.exp(-2), math.exp(-0.375))
    assert expression_confidences(logprobs, pieces) == pytest.approx(expected)
    assert expression_confidences([-1.0], ["no tags"]) == ()
    assert expression_confidences([0.5], ["<answer><rg>sure</rg>"]) == (1.0,)


TEXTS = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=12)


@given(TEXTS, st.lists(TEXTS.filter(str.strip), max_size=4), st.data())
def test_the_confidences_are_those_of_the_expressions_that_are_read(
    reasoning: str, named: list[str], data: st.DataObject
) -> None:
    text = Response(reasoning, tuple(named), "ins").text
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[first:last] for first, last in pairwise([0, *cuts, len(text)])]
    found = expression_confidences([-1.0] * len(pieces), pieces)
    assert found == pytest.approx([math.exp(-1)] * len(parse_lenient(text, Task.SIS).expressions))
    output = PolicyOutput(text, [], None, 0.125, found)
    assert output.confidences(len(named)) == list(found)
    assert output.confidences(len(named) + 1) == [0.125] * (len(named) + 1)


def test_where_no_confidence_is_known_none_is_told() -> None:
    assert PolicyOutput("", []).confidences(2) == [None, None]
    assert PolicyOutput("", [], None, 0.5).confidences(0) == []
