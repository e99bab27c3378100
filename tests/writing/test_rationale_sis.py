"""What is said of instances is true of each, and every expression is true of one alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_r1.cue_limits import COLOURS, Level
from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import measure
from saliency_r1.language.faithfulness import check
from saliency_r1.language.naming import NameBook
from saliency_r1.language.statements import PHRASES, Kind, parse_statements
from saliency_r1.response import Response, parse_strict
from saliency_r1.scenes.scenes import reading_order
from saliency_r1.wording import ORDINALS
from saliency_r1.writing.rationale import LONGEST_EXPRESSION, Step
from saliency_r1.writing.rationale_sis import (
    LONGEST,
    Called,
    InstanceFacts,
    Way,
    consistent_instances,
    instance_facts,
    listed_instances,
    word_instances,
    write_instances,
)

BEAST = ("mammal", "animal", "organism")
SYNSETS = (
    Synset("n1", "dog", ("domestic dog",), ("canine", *BEAST)),
    Synset("n2", "cat", ("true cat",), ("feline", *BEAST)),
    Synset("n3", "maillot", ("tank suit",), ("swimsuit", "garment", "clothing")),
    Synset("n4", "ball", (), ("game equipment", "equipment")),
)
BOOK = NameBook(dict.fromkeys(SYNSETS, 10))
PLACES = {phrase: place for place, phrases in PHRASES[Kind.PLACE].items() for phrase in phrases}

Drawn = tuple[np.ndarray, list[np.ndarray], list[Synset | None]]


@st.composite
def scenes(draw: st.DrawFn, least: int = 0) -> Drawn:
    """Up to six discs and boxes in cells of a grid, often of one name, in reading order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(least, 6))
    image = np.tile(rng.integers(0, 256, 3), (96, 96, 1))
    rows, columns = np.mgrid[:96, :96]
    masks = []
    for cell in rng.permutation(9)[:count]:
        radius = rng.uniform(3, 15, 2)
        y, x = (np.array(divmod(int(cell), 3)) + 0.5) * 32 + rng.uniform(-1, 1, 2) * (15.9 - radius)
        far = abs(rows - y) / radius[0], abs(columns - x) / radius[1]
        mask = np.maximum(*far) <= 1 if rng.random() < 0.5 else np.hypot(*far) <= 1
        image[mask] = rng.integers(0, 256, 3)
        masks.append(mask)
    synsets = draw(st.lists(st.sampled_from([None, *SYNSETS]), min_size=count, max_size=count))
    order = reading_order(masks)
    return image.astype(np.uint8), [masks[index] for index in order], synsets


def facts_of(drawn: Drawn) -> tuple[InstanceFacts, ...]:
    image, masks, synsets = drawn
    return instance_facts(image, masks, [Called.of_synset(synset, BOOK) for synset in synsets])


def meant(expression: str, facts: Sequence[InstanceFacts]) -> set[int]:
    """The instances that an expression is true of, read from its words alone."""
    match = re.fullmatch(
        r"the (?:(?P<pair>left|right|upper|lower|larger|smaller|largest|smallest)"
        rf"|(?P<rank>{'|'.join(ORDINALS)})|(?P<colour>{'|'.join(COLOURS)}))? ?"
        rf"(?P<noun>.+?)(?: from the (?P<side>\w+)| (?P<place>{'|'.join(PLACES)}))?",
        expression,
    )
    assert match, expression
    called = [index for index, each in enumerate(facts) if each.called.fits(match["noun"])]

    def among(key: str, reverse: bool, rank: int = 0) -> set[int]:
        return {sorted(called, key=lambda index: getattr(facts[index].cues, key), reverse=reverse)[rank]}

    if match["place"]:
        kind, value = Kind.PLACE, PLACES[match["place"]]
        return {index for index in called if facts[index].cues.holds(kind, value)}
    if match["colour"]:
        return {index for index in called if facts[index].cues.holds(Kind.COLOUR, match["colour"])}
    if match["rank"]:
        side = match["side"]
        key, reverse = ("x" if side in ("left", "right") else "y"), side in ("right", "bottom")
        return among(key, reverse, ORDINALS.index(match["rank"]))
    if match["pair"] in ("left", "right", "upper", "lower", "larger", "smaller"):
        assert len(called) == 2
    if match["pair"]:
        key = "area" if match["pair"].startswith(("large", "small")) else "xy"["r" in match["pair"][-2:]]
        key = {"left": "x", "right": "x", "upper": "y", "lower": "y"}.get(match["pair"], "area")
        return among(key, match["pair"] in ("right", "lower", "larger", "largest"))
    return set(called)


@settings(max_examples=150, deadline=None)
@given(scenes(), st.integers(0, 10_000))
def test_every_wording_is_true_of_its_instance_alone(drawn: Drawn, seed: int) -> None:
    facts = facts_of(drawn)
    wordings = word_instances(facts, Random(seed))
    assert len(wordings) == len(facts)
    for index, options in enumerate(wordings):
        for wording in options:
            assert meant(wording.expression, facts) == {index}
            assert len(wording.expression.split()) <= LONGEST_EXPRESSION
            assert check(wording.expression, facts[index].cues, Level.PLAIN).share in (1.0, None)
    texts = [wording.expression for options in wordings for wording in options]
    assert len(set(texts)) == len(texts)


@settings(max_examples=150, deadline=None)
@given(scenes(), st.integers(0, 10_000))
def test_the_reasoning_states_nothing_that_a_mask_contradicts(drawn: Drawn, seed: int) -> None:
    facts, rng = facts_of(drawn), Random(seed)
    wordings = word_instances(facts, rng)
    if not all(wordings):
        return
    chosen = [rng.choice(options) for options in wordings]
    rationale = write_instances(facts, chosen, rng)
    assert rationale.expressions == tuple(wording.expression for wording in chosen)
    assert len(set(rationale.expressions)) == len(facts)
    assert len(rationale.reasoning.split()) <= LONGEST
    response = Response(rationale.reasoning, rationale.expressions, "ins")
    assert parse_strict(response.text, "sis") == response
    if not facts:
        assert response.text.endswith("<answer></answer>")
        return
    count = ("zero", "one", "two", "three", "four", "five", "six")[len(facts)]
    assert f" {count} " in f" {rationale.reasoning.lower()}"
    assert f": {'; '.join(rationale.described)}. " in rationale.reasoning
    for each, text, expression, stated in zip(
        facts, rationale.described, rationale.expressions, rationale.stated, strict=True
    ):
        assert text.startswith(expression)
        parsed = Counter((statement.kind, statement.value) for statement in parse_statements(text))
        assert parsed == Counter(stated)
        assert check(text, each.cues, Level.PLAIN).share in (1.0, None)
        order = re.search(r", (\w+) from the (\w+)", text)
        if order:
            assert meant(f"the {order[1]} object from the {order[2]}", facts) == {facts.index(each)}


def pair(apart: str = "x", same: bool = True) -> Drawn:
    """Two boxes of one name, or of two."""
    masks = [np.zeros((96, 96), bool) for _ in range(2)]
    masks[0][10:30, 8:28] = True
    if apart == "x":
        masks[1][10:30, 68:88] = True
    else:
        masks[1][66:86, 8:28] = True
    image = np.full((96, 96, 3), 90, np.uint8)
    image[masks[0]] = (200, 20, 25)
    image[masks[1]] = (40, 110, 200)
    return image, masks, [SYNSETS[0], SYNSETS[0 if same else 1]]


def ways(drawn: Drawn, seed: int) -> list[list[str]]:
    return [
        [each.expression for each in options] for options in word_instances(facts_of(drawn), Random(seed))
    ]


def test_two_of_one_name_are_told_by_place_then_order_then_colour() -> None:
    for seed in range(40):
        left, right = ways(pair(), seed)
        dogs = [text for text in left if "dog" in text]
        assert dogs[:3] == ["the dog at the top left", "the left dog", "the red dog"]
        assert "the blue dog" in right
        upper, lower = ways(pair("y"), seed)
        assert "the upper dog" in upper
        assert "the lower dog" in lower


def test_an_only_name_is_told_with_its_place_and_can_do_without() -> None:
    wordings = [ways(pair(same=False), seed)[0] for seed in range(300)]
    firsts = Counter(each[0] for each in wordings)
    assert firsts.keys() == {
        "the dog at the top left",
        "the animal at the top left",
        "the object at the top left",
    }
    assert firsts["the dog at the top left"] > 2 * firsts["the object at the top left"]
    assert all("the dog" in each for each in wordings)


def test_a_person_is_not_told_by_the_colour_of_the_clothes() -> None:
    image, masks, _ = pair()
    facts = facts_of((image, masks, [SYNSETS[2]] * 2))
    for seed in range(40):
        rng = Random(seed)
        wordings = word_instances(facts, rng)
        said = write_instances(facts, [rng.choice(options) for options in wordings], rng).reasoning
        assert not {"red", "blue"} & set(said.replace(";", "").replace(".", "").split())


def test_a_part_of_the_background_is_weighed_where_it_could_draw_the_eye() -> None:
    image, masks, _ = drawn = pair()
    facts, everything = facts_of(drawn), np.logical_or(*masks)
    image = image.copy()
    image[: image.shape[0] // 3][~everything[: image.shape[0] // 3]] = 255
    around = measure(image, everything)
    wordings = [each[0] for each in word_instances(facts, Random(0))]
    said = write_instances(facts, wordings, Random(0), around).reasoning
    assert said.endswith("The top is lighter and could draw the eye, but it belongs to the background.")
    stated = [each for each in parse_statements(said) if each.kind is Kind.REST]
    assert stated
    assert all(around.holds(each.kind, each.value) for each in stated)
    assert "draw the eye" not in write_instances(facts, wordings, Random(0)).reasoning


def test_a_word_for_both_is_not_enough_for_either() -> None:
    for seed in range(40):
        for options in ways(pair(same=False), seed):
            assert not {"the animal", "the object"} & set(options)


def test_order_counts_from_the_nearer_side() -> None:
    image = np.full((96, 96, 3), 90, np.uint8)
    masks = []
    for x in (6, 24, 42, 60, 78):
        mask = np.zeros((96, 96), bool)
        mask[40:50, x : x + 10] = True
        masks.append(mask)
    options = word_instances(facts_of((image, masks, [SYNSETS[3]] * 5)), Random(4))
    found = [
        [each.expression for each in each if each.way is Way.ORDER and each.step is Step.NAME]
        for each in options
    ]
    assert [texts[0] for texts in found] == [
        "the first ball from the left",
        "the second ball from the left",
        "the third ball from the left",
        "the second ball from the right",
        "the first ball from the right",
    ]


def test_of_a_crowd_the_six_largest_are_listed_and_the_reasoning_says_that_there_are_more() -> None:
    image = np.full((96, 96, 3), 90, np.uint8)
    masks = []
    for number in range(9):
        mask = np.zeros((96, 96), bool)
        mask[30 : 36 + 2 * number, 10 * number + 2 : 10 * number + 9] = True
        masks.append(mask)
    facts = facts_of((image, masks, [SYNSETS[3]] * 9))
    listed = listed_instances(facts)
    assert listed == [3, 4, 5, 6, 7, 8]
    for seed in range(20):
        rng = Random(seed)
        options = [word_instances(facts, rng)[index] for index in listed]
        chosen = [each[0] for each in options]
        for index, wording in zip(listed, chosen, strict=True):
            assert meant(wording.expression, facts) == {index}  # among all nine
        more = [facts[index] for index in range(3)]
        rationale = write_instances([facts[index] for index in listed], chosen, rng, more=more)
        assert "more than six" in rationale.reasoning.lower()
        assert len(rationale.expressions) == 6
        assert len(rationale.reasoning.split()) <= LONGEST
        few = write_instances([facts[index] for index in listed], chosen, rng)
        assert "more than" not in few.reasoning


def test_instances_that_nothing_tells_apart_have_no_wording() -> None:
    image, masks, _ = pair()
    assert word_instances(facts_of((image, [masks[0], masks[0]], [SYNSETS[0]] * 2)), Random(0)) == ((), ())


def test_texts_vary_with_the_seed_and_only_with_it() -> None:
    facts = facts_of(pair(same=False))

    def text(seed: int) -> str:
        rng = Random(seed)
        return write_instances(facts, [each[0] for each in word_instances(facts, rng)], rng).reasoning

    texts = [text(seed) for seed in range(200)]
    assert len(set(texts)) >= 80
    assert texts == [text(seed) for seed in range(200)]
    assert len({word.strip(".,:;").lower() for text in texts for word in text.split()}) < 60


def test_instances_are_kept_reworded_or_dropped_by_what_their_expressions_find() -> None:
    drawn = pair()
    facts, masks = facts_of(drawn), drawn[1]
    wordings = word_instances(facts, Random(0))

    def understands(known: set[str]) -> tuple[object, str]:
        def segment(text: str) -> np.ndarray:
            hit = next(
                index for index, options in enumerate(wordings) if text in {o.expression for o in options}
            )
            return masks[hit] if text in known else np.zeros_like(masks[0])

        return consistent_instances(wordings, segment, masks)

    first = {options[0].expression for options in wordings}
    chosen, outcome = understands(first)
    assert (chosen, outcome) == (tuple(options[0] for options in wordings), "kept")
    chosen, outcome = understands({wordings[0][0].expression, wordings[1][1].expression})
    assert (chosen, outcome) == ((wordings[0][0], wordings[1][1]), wordings[1][1].label)
    assert understands({wordings[0][0].expression}) == (None, "dropped")
    empty = np.zeros_like(masks[0])
    half = consistent_instances(wordings, lambda text: masks[0] if text in first else empty, masks, 0.7, 0.5)
    assert half == (tuple(options[0] for options in wordings), "kept in part")


def test_categories_are_called_by_their_nouns() -> None:
    called = Called.of_words(("sofa", "furniture"))
    assert called.words == (
        (Step.NAME, "sofa"),
        (Step.HYPERNYM, "furniture"),
        (Step.OBJECT, "object"),
    )
    assert called.fits("object")
    assert not called.fits("dog")
    assert Called.of_words(()).words == ((Step.OBJECT, "object"),)


def test_too_many_or_empty_instances_are_refused() -> None:
    image, masks, _ = pair()
    called = [Called.of_synset(None, BOOK)]
    with pytest.raises(SaliencyError, match="13 instances: expected at most 12"):
        instance_facts(image, masks[:1] * 13, called * 13)
    with pytest.raises(SaliencyError, match="empty mask"):
        instance_facts(image, [np.zeros((96, 96), bool)], called)
