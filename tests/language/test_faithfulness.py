"""Faithfulness: what a reasoning states, and whether the mask bears it out."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_r1.cue_limits import Level
from saliency_r1.language.cues import measure
from saliency_r1.language.faithfulness import Faithfulness, aggregate, check, faithfulness, parse_statements
from saliency_r1.language.statements import PHRASES, Kind
from saliency_r1.writing.rationale import write_rationale


def drawn(left: float, colour: tuple[int, int, int] = (200, 25, 30)) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((120, 160), bool)
    start = round(left * 160)
    mask[40:80, start : start + 48] = True
    return np.where(mask[..., None], np.uint8(colour), np.uint8((230, 230, 230))), mask


def values(text: str) -> list[tuple[str, str]]:
    return [(statement.kind.value, statement.value) for statement in parse_statements(text)]


def by_kind(result: Faithfulness, kind: Kind) -> list[bool]:
    return [verdict for statement, verdict in result.statements if statement.kind is kind]


@pytest.mark.parametrize("kind", list(Kind))
def test_every_phrase_of_the_vocabulary_is_read_back(kind: Kind) -> None:
    for value, phrases in PHRASES[kind].items():
        for phrase in phrases:
            comparative = phrase in (
                "lighter",
                "brighter",
                "darker",
                "duller",
                "sharper",
                "in sharper focus",
            ) or ("colourful" in phrase)
            text = f"It: {phrase}{' than the surroundings' if comparative else ''}, so the answer is it."
            (statement,) = parse_statements(text)
            assert (statement.kind, statement.value) == (kind, value)
            assert text[slice(*statement.span)] == phrase


def test_statements_in_their_contexts() -> None:
    assert values("The tiny red ball on the left") == [("size", "tiny"), ("colour", "red"), ("place", "left")]
    assert values("An orange in the centre and the orange ball at the top right.") == [
        ("place", "centre"),
        ("colour", "orange"),
        ("place", "top right"),
    ]
    assert values("It is mostly brown against a green background.") == [
        ("colour", "brown"),
        ("colour", "background green"),
    ]
    assert values("The background is mostly blue.") == [("colour", "background blue")]
    assert values("It reaches the left edge.") == [("place", "left edge")]
    assert values("It is LIGHTER and\nmore colourful than the surroundings.") == [
        ("contrast", "lighter"),
        ("contrast", "more colourful"),
    ]
    assert values("It has little contrast with the surroundings.") == [("contrast", "little")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A lovely day out.",
        "The background is darker than the dog.",
        "A lighter on a table, a sharper mind.",
        "He left at the top left edge of reason.",
        "The redness of smallness, a top hat, right away.",
        "small-minded, greenish, off-white",
        "ſmall ﬁgure İn the centreline",
    ],
)
def test_what_is_outside_the_vocabulary_states_nothing(text: str) -> None:
    assert parse_statements(text) == []
    assert faithfulness(text, *drawn(0.1)).share is None


@given(st.text())
def test_any_text_parses_with_spans_inside_it(text: str) -> None:
    ends = [0]
    for statement in parse_statements(text):
        assert ends[-1] <= statement.span[0] < statement.span[1] <= len(text)
        ends.append(statement.span[1])


def test_a_denied_statement_holds_when_what_it_denies_does_not() -> None:
    image, mask = drawn(0.1)
    result = faithfulness(
        "It is not on the right. It is not mostly red. It has no strong contrast.", image, mask
    )
    assert [verdict for _, verdict in result.statements] == [True, False, False]
    assert faithfulness("It touches no edge and is small.", image, mask).share == 1.0


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 0.12), st.integers(0, 10_000))
def test_a_mask_on_the_other_side_fails_the_place_alone(left: float, seed: int) -> None:
    image, mask = drawn(left)
    reasoning = write_rationale(measure(image, mask), None, Random(seed)).reasoning
    assert faithfulness(reasoning, image, mask).share == 1.0
    flipped = faithfulness(reasoning, image[:, ::-1].copy(), mask[:, ::-1].copy())
    sides = [verdict for statement, verdict in flipped.statements if statement.value == "left"]
    assert sides
    assert not any(sides)
    for kind in (Kind.SIZE, Kind.COLOUR, Kind.CONTRAST):
        assert all(by_kind(flipped, kind))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_another_colour_fails_the_colour_alone(seed: int) -> None:
    image, mask = drawn(0.1)
    reasoning = write_rationale(measure(image, mask), None, Random(seed)).reasoning
    repainted = faithfulness(reasoning, *drawn(0.1, (30, 60, 190)))
    own = [verdict for statement, verdict in repainted.statements if statement.value == "red"]
    assert own
    assert not any(own)
    assert all(by_kind(repainted, Kind.PLACE) + by_kind(repainted, Kind.SIZE))


def test_nothing_said_of_an_empty_mask_holds_but_that_nothing_stands_out() -> None:
    image, mask = drawn(0.1)
    empty = np.zeros_like(mask)
    assert faithfulness("A small red ball on the left.", image, empty).holds == 0
    assert faithfulness("Here nothing stands out.", image, empty).share == 1.0
    assert faithfulness("Here nothing stands out.", image, mask).share == 0.0


def test_the_levels_differ_near_a_limit_only() -> None:
    image, mask = drawn(0.26)
    cues = measure(image, mask)
    assert cues.x == pytest.approx(0.4125, abs=0.003)
    assert check("It is on the left.", cues, Level.TOLERANT).share == 1.0
    assert check("It is on the left.", cues, Level.PLAIN).share == 0.0
    assert check("It is on the right.", cues, Level.TOLERANT).share == 0.0


def test_a_set_is_counted_by_statement() -> None:
    image, mask = drawn(0.1)
    texts = ["A small red thing on the right.", "It is on the left.", "Hello."]
    summary = aggregate(faithfulness(text, image, mask) for text in texts)
    assert (summary.holds, summary.total, summary.silent, summary.share) == (3, 4, 1, 0.75)
    assert summary.by_kind == {Kind.PLACE: 0.5, Kind.SIZE: 1.0, Kind.COLOUR: 1.0}
    assert summary.by_value[Kind.PLACE, "right"] == (0, 1)
    assert aggregate([]).share is None
