"""What is said of a group is true of its images, and its expression of nothing else in them."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_r1.cue_limits import COLOURS
from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import measure
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import NameBook
from saliency_r1.language.statements import PHRASES, Kind
from saliency_r1.response import Response, parse_strict
from saliency_r1.writing.rationale_cosod import LONGEST, GroupImage, word_group, write_group

BEAST = ("mammal", "animal", "organism")
SYNSETS = (
    Synset("n1", "dog", ("domestic dog",), ("canine", *BEAST)),
    Synset("n2", "cat", ("true cat",), ("feline", *BEAST)),
    Synset("n3", "maillot", ("tank suit",), ("swimsuit", "garment", "clothing")),
    Synset("n4", "sofa", ("couch",), ("seat", "furniture")),
    Synset("n5", "golf ball", (), ("ball", "game equipment")),
)
BOOK = NameBook(dict.fromkeys(SYNSETS, 10))
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
WHERE = re.compile(
    rf"({'|'.join(phrases[0] for value, phrases in PHRASES[Kind.PLACE].items() if ' edge' not in value)})"
    r"((?: (?:and )?in the (?:first|second|third|fourth|fifth|sixth)(?: image)?)+)"
)


def image_of(
    rng: np.random.Generator, others: tuple[Synset, ...] = (), colour: int | None = None
) -> GroupImage:
    mask = np.zeros((64, 64), bool)
    y, x = rng.integers(0, 44, 2)
    mask[y : y + 20, x : x + 20] = True
    image = np.full((64, 64, 3), 128, np.uint8)
    image[mask] = rng.integers(0, 256, 3) if colour is None else (200, 20, 25)
    return GroupImage(measure(image, mask), others)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 6),
    st.sampled_from(SYNSETS),
    st.lists(st.sampled_from(SYNSETS), max_size=6),
    st.integers(0, 10_000),
)
def test_what_is_said_of_a_group_holds(size: int, shared: Synset, others: list[Synset], seed: int) -> None:
    rng, draw = Random(seed), np.random.default_rng(seed)
    others = [other for other in others if other != shared]
    images = [image_of(draw, tuple(others[index : index + 1]), seed % 2 or None) for index in range(size)]
    present = others[:size]
    wordings = word_group(shared, present, rng, BOOK)
    for wording in wordings:
        rationale = write_group(images, wording, rng, BOOK)
        assert rationale.expressions == (f"the {wording.noun}",)
        assert wording.expression in rationale.reasoning
        assert len(rationale.reasoning.split()) <= LONGEST
        response = Response(rationale.reasoning, rationale.expressions, "rg")
        assert parse_strict(response.text, "cosod") == response
        for other in present:
            assert wording.noun not in Nouns.of(other, BOOK).kinds | {"object"}
        said = []
        for place, where in WHERE.findall(rationale.reasoning):
            value = next(value for value, phrases in PHRASES[Kind.PLACE].items() if place in phrases)
            said += [(ORDINALS.index(word), Kind.PLACE, value) for word in where.split() if word in ORDINALS]
        colour = re.search(rf"is mostly ({'|'.join(COLOURS)}) in each", rationale.reasoning)
        said += [(index, Kind.COLOUR, colour[1]) for index in range(size) if colour]
        assert Counter(said) == Counter(rationale.stated)
        assert all(images[index].cues.holds(kind, value) for index, kind, value in said)
        aside = re.search(r"\. ([^.]*) (?:is|are) in (one image|some images) alone", rationale.reasoning)
        counts = Counter(BOOK.name(other) for image in images for other in image.others)
        assert bool(aside) == any(count < size for count in counts.values())
        if aside:
            named = re.split(r", | and ", aside[1])
            assert all(0 < counts[name.lower().removeprefix("the ")] < size for name in named)
            if aside[2] == "one image":
                assert all(counts[name.lower().removeprefix("the ")] == 1 for name in named)


def test_names_are_preferred_but_vaguer_words_are_kept_in_use() -> None:
    firsts = Counter(word_group(SYNSETS[0], (), Random(seed), BOOK)[0].noun for seed in range(400))
    assert firsts.keys() == {"dog", "animal", "object"}
    assert firsts["dog"] > firsts["animal"] + firsts["object"]


def test_a_noun_that_fits_a_distractor_is_not_used() -> None:
    nouns = {wording.noun for wording in word_group(SYNSETS[0], [SYNSETS[1]], Random(0), BOOK)}
    assert nouns == {"dog"}
    assert word_group(SYNSETS[0], [Synset("n9", "dog", (), BEAST)], Random(0), BOOK) == ()


def test_the_colour_is_said_if_it_is_that_of_every_image() -> None:
    rng = np.random.default_rng(0)
    images = [image_of(rng, colour=1) for _ in range(3)]
    (name, *_) = word_group(SYNSETS[4], (), Random(3), BOOK)
    assert "is mostly red in each" in write_group(images, name, Random(0), BOOK).reasoning


def test_a_group_has_two_to_six_images() -> None:
    (wording, *_) = word_group(SYNSETS[4], (), Random(3), BOOK)
    image = image_of(np.random.default_rng(0))
    for count in (1, 7):
        with pytest.raises(SaliencyError, match=f"a group of {count} images: expected 2 to 6"):
            write_group([image] * count, wording, Random(0), BOOK)
