"""Rationales say only what their mask bears out, in words that can be read back."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repository import ROOT
from saliency_r1.cue_limits import COLOURS, SIDES, Level
from saliency_r1.data.duts import load_duts
from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.faithfulness import check, faithfulness
from saliency_r1.language.naming import NameBook, is_person, with_article
from saliency_r1.language.statements import Kind, parse_statements
from saliency_r1.response import Response, parse_strict
from saliency_r1.tasks import Task
from saliency_r1.writing.openings import open_with
from saliency_r1.writing.rationale import (
    FIRST,
    LONGEST,
    LONGEST_EXPRESSION,
    SHORTEST,
    Rationale,
    Step,
    Writer,
    consistent,
    write_candidates,
    write_rationale,
)

GOODS = ("artifact", "whole", "object", "physical entity", "entity")
BEASTS = (
    "placental",
    "mammal",
    "vertebrate",
    "chordate",
    "animal",
    "organism",
    "living thing",
    "whole",
    "object",
)
SYNSETS = {
    synset.name: synset
    for synset in (
        Synset("n1", "orange", (), ("citrus", "edible fruit", "produce", "food", "solid", "matter")),
        Synset("n2", "maillot", ("tank suit",), ("swimsuit", "garment", "clothing", "covering", *GOODS)),
        Synset(
            "n3",
            "sunglasses",
            ("dark glasses", "shades"),
            ("spectacles", "device", "instrumentality", *GOODS),
        ),
        Synset(
            "n4", "Granny Smith", (), ("eating apple", "apple", "edible fruit", "produce", "food", "solid")
        ),
        Synset(
            "n5", "sofa", ("couch", "lounge"), ("seat", "furniture", "furnishing", "instrumentality", *GOODS)
        ),
        Synset("n6", "brown bear", ("bruin", "Ursus arctos"), ("bear", "carnivore", *BEASTS)),
        Synset(
            "n7",
            "Scotch terrier",
            ("Scottie",),
            ("terrier", "hunting dog", "dog", "canine", "carnivore", *BEASTS),
        ),
        Synset("n8", "unicycle", ("monocycle",), ("wheeled vehicle", "vehicle", "conveyance", *GOODS)),
        Synset("n9", "golf ball", (), ("ball", "game equipment", "equipment", "instrumentality", *GOODS)),
        Synset(
            "n10", "head cabbage", (), ("cabbage", "cruciferous vegetable", "vegetable", "produce", "food")
        ),
        Synset("n11", "swimming trunks", ("bathing trunks",), ("swimsuit", "garment", "clothing", *GOODS)),
        Synset("n12", "bathing cap", ("swimming cap",), ("cap", "headdress", "clothing", "covering", *GOODS)),
        Synset("n13", "gizmo", (), ("device", "instrumentality", *GOODS)),
        Synset("n14", "Kryptonite", (), ("substance", "matter", "physical entity", "entity")),
    )
}


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A picture of up to three blobs on a plain or noisy background, and the mask of the blobs."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.floats(0, 1)) * width, draw(st.floats(0, 1)) * height
        a, b = draw(st.floats(0.05, 0.8)) * width, draw(st.floats(0.05, 0.8)) * height
        if draw(st.booleans()):
            mask |= ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1
        else:
            mask |= (abs(columns - x) <= a) & (abs(rows - y) <= b)
    colour = st.tuples(*[st.integers(0, 255)] * 3)
    image = np.where(mask[..., None], np.array(draw(colour)), np.array(draw(colour))).astype(float)
    for where in (mask, ~mask):
        image[where] += rng.normal(0, draw(st.sampled_from([0, 0, 8, 40])), (int(where.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8), mask


synsets = st.sampled_from([None, *SYNSETS.values()])


@settings(max_examples=150, deadline=None)
@given(scenes(), synsets, st.integers(0, 10_000))
def test_no_rationale_states_what_its_mask_contradicts(
    scene: tuple[np.ndarray, np.ndarray], synset: Synset | None, seed: int
) -> None:
    cues = measure(*scene)
    candidates = write_candidates(cues, synset, Random(seed))
    assert len({rationale.expressions for rationale in candidates}) == len(candidates)
    for rationale in candidates:
        parsed = parse_statements(rationale.reasoning)
        assert Counter((statement.kind, statement.value) for statement in parsed) == Counter(rationale.stated)
        assert not any(statement.negated for statement in parsed)
        verdicts = check(rationale.reasoning, cues, Level.PLAIN)
        assert verdicts.holds == verdicts.total
        assert SHORTEST <= len(rationale.reasoning.split()) <= LONGEST
        assert len(rationale.expressions) == (0 if cues.empty else 1)
        for expression in rationale.expressions:
            assert expression in rationale.reasoning
            assert len(expression.split()) <= LONGEST_EXPRESSION
            assert expression == expression.lower()
        response = Response(rationale.reasoning, rationale.expressions, Task.SOD.spec.tag)
        assert parse_strict(response.text, Task.SOD) == response


def scene(colour: tuple[int, int, int] = (200, 25, 30), left: bool = True) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((120, 160), bool)
    mask[40:80, 15:65] = True
    if not left:
        mask = mask[:, ::-1].copy()
    return np.where(mask[..., None], np.uint8(colour), np.uint8((60, 120, 60))), mask


def test_texts_vary_with_the_seed_and_only_with_it() -> None:
    cues = measure(*scene())
    book = NameBook({SYNSETS["golf ball"]: 10})
    texts = [write_rationale(cues, SYNSETS["golf ball"], Random(seed), names=book) for seed in range(200)]
    assert len({text.expressions for text in texts}) >= 5
    assert texts == [
        write_rationale(cues, SYNSETS["golf ball"], Random(seed), names=book) for seed in range(200)
    ]
    # What is said follows from the picture: the seed chooses the noun and what the expression holds.
    assert len({text.reasoning.split(", so the answer")[0] for text in texts}) <= 3 * len(FIRST)


def test_sentences_of_a_known_scene() -> None:
    rationale = write_rationale(measure(*scene()), SYNSETS["golf ball"], Random(3))
    assert "ball" in rationale.reasoning
    assert 2 <= rationale.reasoning.count(".") <= 4
    assert {"left", "small", "red"} <= {value for _, value in rationale.stated}


def test_a_person_is_not_given_the_colour_of_the_clothes() -> None:
    cues = measure(*scene())
    for seed in range(40):
        rationale = write_rationale(cues, SYNSETS["maillot"], Random(seed))
        if rationale.step is not Step.OBJECT:
            assert "person" in rationale.expressions[0]
            assert " it " not in f" {rationale.reasoning.lower()} "
        assert "red" not in {value for _, value in rationale.stated}


def test_an_orange_is_a_fruit_and_not_a_statement() -> None:
    for seed in range(40):
        rationale = write_rationale(measure(*scene((245, 140, 20))), SYNSETS["orange"], Random(seed))
        stated = {value for _, value in rationale.stated}
        assert {s.value for s in parse_statements(rationale.reasoning)} == stated
        assert rationale.expressions[0] in ("the fruit", "the object") or "orange" in rationale.expressions[0]


def test_the_name_is_most_often_preferred_but_not_always() -> None:
    cues = measure(*scene())
    steps = Counter(write_rationale(cues, SYNSETS["brown bear"], Random(seed)).step for seed in range(300))
    assert steps.keys() == {Step.NAME, Step.HYPERNYM, Step.OBJECT}
    assert steps[Step.NAME] > steps[Step.HYPERNYM] + steps[Step.OBJECT]


def test_it_is_the_object_and_never_the_background() -> None:
    cues = measure(*scene())
    for seed in range(60):
        text = write_rationale(cues, SYNSETS["golf ball"], Random(seed)).reasoning
        assert "background is mostly green. It" not in text


def test_an_empty_mask_gives_an_empty_answer() -> None:
    (rationale,) = write_candidates(Cues(area=0.0), SYNSETS["orange"], Random(0))
    assert rationale.expressions == ()
    assert rationale.step is Step.NOTHING
    assert Response(rationale.reasoning, (), "rg").text.endswith("<answer></answer>")
    mask = np.zeros((4, 4), bool)
    assert consistent([rationale], lambda _: mask.astype(float), mask).outcome == "kept"


def candidates() -> tuple[tuple[Rationale, ...], np.ndarray]:
    image, mask = scene()
    book = NameBook({SYNSETS["sofa"]: 10, SYNSETS["golf ball"]: 10})
    return write_candidates(measure(image, mask), SYNSETS["sofa"], Random(1), names=book), mask


@pytest.mark.parametrize("understood", ["sofa", "couch", "object"])
def test_a_rationale_is_kept_reworded_or_dropped_by_what_its_expression_finds(understood: str) -> None:
    options, mask = candidates()

    def segment(expression: str) -> np.ndarray:
        return (mask if understood in expression.split() else ~mask).astype(np.float32)

    kept = consistent(options, segment, mask)
    assert kept.rationale is not None
    assert understood in kept.rationale.expressions[0]
    assert f" {understood} " in kept.rationale.reasoning
    assert kept.outcome == {"sofa": "kept", "couch": "synonym", "object": "object with place"}[understood]
    assert kept.iou == 1
    lost = consistent(options, lambda _: ~mask, mask)
    assert (lost.rationale, lost.outcome, lost.tried) == (None, "dropped", len(options))


def test_an_iou_below_the_minimum_is_not_enough_and_shapes_must_agree() -> None:
    options, mask = candidates()
    half = mask.copy()
    half[:, :40] = False
    assert consistent(options, lambda _: half.astype(float), mask, minimum_iou=0.7).outcome == "dropped"
    assert consistent(options, lambda _: half.astype(float), mask, minimum_iou=0.4).outcome == "kept"
    with pytest.raises(SaliencyError, match="segmenter gave"):
        consistent(options, lambda _: half[:3], mask)


def test_rare_and_technical_synsets_go_by_a_common_name() -> None:
    book = NameBook(dict.fromkeys(SYNSETS.values(), 8))
    names = {lemma: book.name(synset) for lemma, synset in SYNSETS.items()}
    assert names["Granny Smith"] == "apple"
    assert names["Scotch terrier"] == "dog"
    assert names["brown bear"] == "bear"
    assert names["head cabbage"] == "cabbage"
    assert names["sunglasses"] == "pair of sunglasses"
    assert names["swimming trunks"] == "person in swimming trunks"
    assert names["golf ball"] == "golf ball"
    assert names["Kryptonite"] == "object"
    rare = NameBook({SYNSETS["golf ball"]: 2, Synset("n99", "balloon", (), ("ball",)): 9})
    assert rare.name(SYNSETS["golf ball"]) == "ball"
    assert book.rewordings(SYNSETS["sofa"]) == ("couch", None, "object")
    assert book.rewordings(SYNSETS["golf ball"]) == (None, "ball", "object")
    assert book.rewordings(SYNSETS["maillot"])[1] == "person"
    assert book.rewordings(SYNSETS["gizmo"]) == (None, None, "object")


def test_names_are_countable_lower_case_and_no_cue() -> None:
    book = NameBook(dict.fromkeys(SYNSETS.values(), 8))
    for synset in SYNSETS.values():
        for name in (book.name(synset), *book.rewordings(synset)):
            assert name is None or name == name.lower()
            assert not name or not parse_statements(f"the {name} is here")
    assert with_article("orange") == "an orange"
    assert with_article("unicycle") == "a unicycle"
    assert with_article("umbrella") == "an umbrella"
    assert is_person("person in a hat")
    assert not is_person("cassette player")


def test_real_photos_are_described_truly_in_few_words() -> None:
    beside = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("SALIENCY_R1_DATA", beside)) / "DUTS"
    if not root.is_dir():
        pytest.skip(f"needs DUTS-TR in {root}: set SALIENCY_R1_DATA to the folder that holds DUTS")
    samples = load_duts(root)
    book = NameBook.from_samples(samples)
    pictures = Counter(book.name(sample.synset) for sample in samples if sample.synset)
    assert 100 <= len(pictures) <= 200
    assert sum(count for count in pictures.values() if count < book.minimum) < 0.02 * pictures.total()
    texts = []
    for sample in Random(0).sample(samples, 40):
        assert sample.mask is not None
        cues = measure(Image.open(sample.image), np.asarray(Image.open(sample.mask).convert("L")) > 127)
        rationale = write_rationale(cues, sample.synset, Random(sample.name), names=book)
        assert check(rationale.reasoning, cues, Level.PLAIN).share in (1.0, None)
        texts.append(rationale.reasoning)
    assert len(set(texts)) == len(texts)
    assert len({word.strip(".,:").lower() for text in texts for word in text.split()}) < 200


def test_first_sentences_follow_from_the_picture() -> None:
    """The kind of thing chooses how a text begins, the rarest clear cue how the first sentence ends."""
    none = {level: dict.fromkeys(COLOURS, 0.0) for level in Level}
    apart, contact = dict.fromkeys(SIDES, 0.2), dict.fromkeys(SIDES, 0.0)
    small = Cues(0.02, 0.2, 0.2, apart, contact, (1.0,), none, none)
    found = {
        open_with(cues, noun, Writer(Random(0)), above)
        for cues in (small, replace(small, area=0.6, x=0.5, y=0.5), replace(small, sharpness=3.0, area=0.2))
        for noun, above in (("pug", ("dog", "animal")), ("person", ()), ("mug", ("cup", "container")))
    }
    assert len(found) == 9
    assert "What catches the eye is the pug, which takes up very little of the picture." in found
    assert "The first look goes to the person, which is sharper than the background." in found


def test_what_could_draw_the_eye_is_told_and_checked() -> None:
    image = np.full((90, 120, 3), 90, np.uint8)
    image[:, 80:] = 250
    mask = np.zeros((90, 120), bool)
    mask[20:70, 10:50] = True
    image[mask] = (200, 40, 30)
    rationale = write_rationale(measure(image, mask), SYNSETS["golf ball"], Random(0))
    assert "The right side is lighter and could draw the eye" in rationale.reasoning
    assert (Kind.REST, "right lighter") in rationale.stated
    assert faithfulness(rationale.reasoning, image, mask).share == 1.0
    assert faithfulness(rationale.reasoning, image[:, ::-1].copy(), mask[:, ::-1].copy()).share < 1.0
