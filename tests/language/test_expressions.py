"""Referring expressions: what they say must hold for the mask they come with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_r1.data.samples import Synset
from saliency_r1.language.expressions import NOTHING, Nouns, Region, absent, alone, apart, phrase, vocabulary
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.words import UNKNOWN, WordList, words_of
from saliency_r1.scenes.referring import mirrored

DOG = Synset("n1", "dog", ("domestic dog",), ("canine", "carnivore", "animal", "organism", "entity"))
CAT = Synset("n2", "cat", (), ("feline", "carnivore", "animal", "organism", "entity"))
BUS = Synset("n3", "school bus", (), ("bus", "vehicle", "artifact", "entity"))
BOOK = NameBook({DOG: 20, CAT: 20, BUS: 20})
NOUNS = {synset.name: Nouns.of(synset, BOOK) for synset in (DOG, CAT, BUS)}


def square(x: float, y: float, side: float, size: int = 64) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    half = side / 2
    mask[int((y - half) * size) : int((y + half) * size), int((x - half) * size) : int((x + half) * size)] = (
        True
    )
    return mask


@given(st.integers(0, 10_000))
def test_mirroring_swaps_left_and_right(seed):
    mask = square(0.25, 0.5, 0.3)
    kept = alone(Region(mask, NOUNS["dog"]), np.random.default_rng(seed))
    swapped = alone(Region(mirrored(mask), NOUNS["dog"]), np.random.default_rng(seed))
    assert "right" not in words_of(kept)
    assert "left" not in words_of(swapped)
    assert ("left" in words_of(kept)) == ("right" in words_of(swapped))


@given(st.integers(0, 10_000))
def test_expressions_that_tell_objects_apart_hold_for_one_only(seed):
    left = Region(square(0.2, 0.5, 0.15), NOUNS["dog"], "red")
    right = Region(square(0.7, 0.5, 0.5), NOUNS["school bus"], "blue")
    words = set(words_of(apart(left, right, np.random.default_rng(seed))))
    assert not words & {
        "right",
        "large",
        "larger",
        "bigger",
        "largest",
        "big",
        "blue",
        "bus",
        "school",
        "vehicle",
    }
    words = set(words_of(apart(right, left, np.random.default_rng(seed))))
    assert not words & {"left", "small", "smaller", "smallest", "little", "red", "dog", "animal"}


def test_nothing_tells_two_like_objects_at_one_place_apart():
    one = Region(square(0.5, 0.5, 0.3), NOUNS["dog"])
    assert apart(one, one, np.random.default_rng(0)) is None


@given(st.integers(0, 10_000))
def test_an_absent_thing_shares_no_noun_with_what_is_there(seed):
    text = absent([NOUNS["dog"]], list(NOUNS.values()), np.random.default_rng(seed))
    assert text is None or text in NOTHING or "bus" in words_of(text)


def test_related_by_a_concrete_hypernym_only():
    assert NOUNS["dog"].related(NOUNS["cat"])
    assert not NOUNS["dog"].related(NOUNS["school bus"])


@pytest.mark.parametrize(
    ("sides", "allowed"),
    [
        (["left"], {"left"}),
        (["left", "top"], {"left", "top", "upper"}),
        (["centre"], {"centre", "center", "middle"}),
    ],
)
def test_place_words(sides, allowed):
    for seed in range(40):
        words = set(words_of(phrase("dog", np.random.default_rng(seed), (), sides)))
        assert words - {"the", "dog", "on", "in", "at"} <= allowed


def test_every_expression_is_in_the_vocabulary_but_for_the_unknown_noun():
    words = WordList(vocabulary(list(NOUNS.values())))
    rng = np.random.default_rng(3)
    for _ in range(300):
        text = alone(
            Region(square(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), 0.3), NOUNS["dog"], "red"), rng
        )
        assert all(words.number(word) != UNKNOWN for word in words_of(text) if word != "xxx"), text


def test_word_list_reads_plurals_case_and_unknown_words():
    words = WordList(["dog", "the", "glass", "bus"])
    assert words.encode(["The DOGS!"], 3) == [[3, 2, 0]]
    assert words.encode(["glasses buses"], 2) == [[4, 5]]
    assert words.encode(["zyzzy", "", "the the the"], 2) == [[UNKNOWN, 0], [UNKNOWN, 0], [3, 3]]
