"""Whether an expression names what is there."""

from __future__ import annotations

import pytest

from saliency_r1.data.samples import Synset
from saliency_r1.language.accepted_names import accepted_names, is_named
from saliency_r1.language.naming import NameBook

BEAGLE = Synset("n1", "beagle", ("English hound",), ("hound", "hunting dog", "dog", "canine", "animal"))
LOTION = Synset("n2", "lotion", (), ("toiletry", "instrumentality", "artifact", "object", "entity"))
BOOK = NameBook({BEAGLE: 9, LOTION: 9})


def test_names_synonyms_and_three_levels_are_accepted() -> None:
    names = accepted_names(BEAGLE, BOOK)
    assert {"beagle", "english hound", "hound", "hunting dog", "dog"} <= names
    assert not names & {"canine", "animal", "object"}


def test_what_is_true_of_everything_is_no_name() -> None:
    names = accepted_names(LOTION, BOOK)
    assert {"lotion", "bottle of lotion", "toiletry"} <= names
    assert not names & {"object", "thing", "artifact", "entity", "instrumentality"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the dog", True),
        ("The brown dogs.", True),
        ("the second dog from the left", True),
        ("the dog on the left", True),
        ("the left English hound", True),
        ("the person with a dog", False),
        ("the doghouse", False),
        ("the dog house", False),
        ("the object", False),
        ("", False),
    ],
)
def test_the_head_of_the_expression_decides(expression: str, expected: bool) -> None:
    assert is_named(expression, accepted_names(BEAGLE, BOOK)) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the white bottle of lotion on the right", True),
        ("the lotion", True),
        ("the bottle", False),
        ("the person with a bottle of lotion", False),
        ("the bottle of lotions", False),
    ],
)
def test_a_name_of_several_words_stands_as_a_whole(expression: str, expected: bool) -> None:
    assert is_named(expression, frozenset({"bottle of lotion", "lotion"})) == expected
