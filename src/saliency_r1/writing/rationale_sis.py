"""Rationales of instances: how many stand out, what and where each is, how they differ, and how to call each.

As in `rationale.py` the truth is known and only what is clear is said, in slots of few words that always
begin with "the". An expression is written out in the reasoning before it is repeated in the answer, so that a
small policy need only copy it. One that could be said of another instance too is never used: such an instance
is told by its place, its order, its size or its colour. The wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import numpy as np
from PIL import Image

from saliency_r1.cue_limits import Level
from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import OBJECT, NameBook, is_person
from saliency_r1.language.statements import PHRASES, Kind
from saliency_r1.masks import iou
from saliency_r1.wording import NUMBERS, ORDINALS
from saliency_r1.writing.openings import clear_colour, clear_place
from saliency_r1.writing.rationale import (
    FIRST,
    LONGEST_EXPRESSION,
    Step,
    Writer,
    nothing_rationale,
    rival_sentence,
)

MOST_INSTANCES = 6
"""Instances that an answer lists. Where more stand out, these are the largest, and the reasoning says so."""
MOST_SEEN = 12
"""Instances of a picture: the ordinal numbers reach so far, counted from both sides."""
LONGEST = 70
"""Words in a reasoning."""
APART = 0.08
"""The distance by which two places must differ for an order, as a share of the picture."""
LARGER = 1.6
"""The factor by which an area is clearly larger than another."""
_MOST_WORDINGS = 6
_COUNTS = ("no", *NUMBERS)
_AXES = {"x": (("left", "right"), ("left", "right")), "y": (("top", "bottom"), ("upper", "lower"))}


class Way(StrEnum):
    """The ways in which an expression tells an instance from the others, in the order of trial."""

    NAME = "name"
    PLACE = "place"
    ORDER = "order"
    SIZE = "size"
    COLOUR = "colour"


@dataclass(frozen=True)
class Called:
    """The names that an instance may have.

    Attributes:
        words: the nouns to use, the plain name first; "object" is always among them.
        kinds: every other noun that is true of it.
    """

    words: tuple[tuple[Step, str], ...]
    kinds: frozenset[str]

    @classmethod
    def of_synset(cls, synset: Synset | None, names: NameBook) -> Called:
        """As the book calls a synset; "object" without one."""
        if synset is None:
            return cls(((Step.OBJECT, OBJECT),), frozenset())
        synonym, hypernym, _ = names.rewordings(synset)
        return cls(_words(names.name(synset), synonym, hypernym), Nouns.of(synset, names).kinds)

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Called:
        """The name by the first of its words, which go from narrow to wide, or by the second."""
        if not words:
            return cls(((Step.OBJECT, OBJECT),), frozenset())
        hypernym = words[1] if len(words) > 1 else None
        return cls(_words(words[0], None, hypernym), frozenset(words))

    def fits(self, noun: str) -> bool:
        """Whether the noun could be said of it."""
        return noun in self.kinds or any(noun == word for _, word in self.words)


def _words(name: str, synonym: str | None, hypernym: str | None) -> tuple[tuple[Step, str], ...]:
    steps = ((Step.NAME, name), (Step.SYNONYM, synonym), (Step.HYPERNYM, hypernym), (Step.OBJECT, OBJECT))
    words: dict[str, Step] = {}
    for step, word in steps:
        if word is not None:
            words.setdefault(word, step)
    return tuple((step, word) for word, step in words.items())


@dataclass(frozen=True)
class InstanceFacts:
    """The facts about one instance: the cues measured on its mask, and its possible names."""

    cues: Cues
    called: Called


def instance_facts(
    image: np.ndarray | Image.Image, masks: Sequence[np.ndarray], called: Sequence[Called]
) -> tuple[InstanceFacts, ...]:
    """The facts of the instances of a picture.

    Args:
        image: RGB, uint8 (H, W, 3) or a PIL image.
        masks: bool (H, W) each, in reading order, none empty.
        called: what each may be called.

    Raises:
        SaliencyError: if there are more than twelve, or a mask is empty.
    """
    if len(masks) > MOST_SEEN:
        raise SaliencyError(f"{len(masks)} instances: expected at most {MOST_SEEN}")
    if not all(mask.any() for mask in masks):
        raise SaliencyError("an instance with an empty mask: leave it out")
    return tuple(InstanceFacts(measure(image, mask), each) for mask, each in zip(masks, called, strict=True))


def listed_instances(instances: Sequence[InstanceFacts]) -> list[int]:
    """Indices of the instances that an answer lists, in reading order: the six largest, or all."""
    largest = sorted(range(len(instances)), key=lambda index: -instances[index].cues.area)
    return sorted(largest[:MOST_INSTANCES])


@dataclass(frozen=True)
class Wording:
    """An expression for an instance of a picture, true of no other one there.

    Attributes:
        expression: at most 8 words.
        noun: its noun.
        step: what kind of noun that is.
        way: what tells the instance from the others.
        stated: the cue statements in it.
    """

    expression: str
    noun: str
    step: Step
    way: Way
    stated: tuple[tuple[Kind, str], ...] = ()

    @property
    def label(self) -> str:
        """`name`, `hypernym with place`, …: what to count."""
        return self.step.value if self.way is Way.NAME else f"{self.step.value} with {self.way.value}"


@dataclass(frozen=True)
class InstanceRationale:
    """A reasoning over the instances of a picture.

    Attributes:
        reasoning: at most 70 words.
        expressions: one an instance, in the same order.
        described: what the reasoning says of each; each begins with its expression.
        stated: kind and value of each cue statement about each instance.
    """

    reasoning: str
    expressions: tuple[str, ...]
    described: tuple[str, ...]
    stated: tuple[tuple[tuple[Kind, str], ...], ...]


def word_instances(instances: Sequence[InstanceFacts], rng: Random) -> tuple[tuple[Wording, ...], ...]:
    """The wordings of each instance, the preferred one first; none for one that cannot be told apart.

    Instances of one name are preferably told in one way, and called by one kind of noun. Of several a place
    is told wherever it is clear, beside a name too: it still points where the name is wrong.

    Args:
        instances: instances of one picture.
        rng: chooses the kind of noun.
    """
    first: dict[str, Step] = {}
    found: list[dict[str, Wording]] = []
    for index, instance in enumerate(instances):
        name = instance.called.words[0][1]
        if name not in first:
            first[name] = rng.choices((Step.NAME, Step.HYPERNYM, Step.OBJECT), FIRST)[0]
        words = sorted(instance.called.words, key=lambda word: word[0] is not first[name])
        wordings: dict[str, Wording] = {}
        for step, noun in words:
            for wording in _wordings(instances, index, step, noun):
                if len(wording.expression.split()) <= LONGEST_EXPRESSION:
                    wordings.setdefault(wording.expression, wording)
        found.append(wordings)
    return tuple(tuple(wordings.values())[:_MOST_WORDINGS] for wordings in found)


def consistent_instances(
    wordings: Sequence[Sequence[Wording]],
    segment: Callable[[str], np.ndarray],
    masks: Sequence[np.ndarray],
    minimum_iou: float = 0.7,
    minimum_found: float = 1.0,
) -> tuple[tuple[Wording, ...] | None, str]:
    """For each instance the first wording that finds it again; its first where none does and that may be.

    Args:
        wordings: as `word_instances` gives them.
        segment: a frozen referring segmenter on this picture: expression to probabilities (H, W) in [0, 1].
        masks: the true ones, bool (H, W).
        minimum_iou: least IoU of the segmenter's mask at 0.5 and the true one.
        minimum_found: share of the instances that must be found. With 1 pictures of many instances, each of
            which may fail, become rare.

    Returns:
        The wordings, None if too few instances are found or one cannot be told apart; and the outcome:
        `kept`, the label of the first wording that was not the preferred one, `kept in part`, or `dropped`.
    """
    chosen: list[Wording] = []
    outcome = "kept"
    missed = 0
    for options, mask in zip(wordings, masks, strict=True):
        fits = (each for each in options if iou(segment(each.expression) >= 0.5, mask) >= minimum_iou)
        wording = next(fits, None)
        if wording is None:
            missed += 1
            if not options or missed > len(masks) * (1 - minimum_found) + 1e-6:
                return None, "dropped"
            wording = options[0]
        if outcome == "kept" and wording is not options[0]:
            outcome = wording.label
        chosen.append(wording)
    return tuple(chosen), "kept in part" if missed else outcome


def write_instances(
    instances: Sequence[InstanceFacts],
    wordings: Sequence[Wording],
    rng: Random,
    around: Cues | None = None,
    more: Sequence[InstanceFacts] = (),
) -> InstanceRationale:
    """The reasoning that leads to these expressions.

    Args:
        instances: instances of one picture, in reading order; of more than six those of `listed_instances`.
        wordings: one an instance.
        rng: chooses among phrases; the same state gives the same text.
        around: the cues of all instances together; with them the reasoning weighs a part of the background
            that could draw the eye, where there is one and few words were said.
        more: further instances of the picture, which stand out too and are not listed.
    """
    if not instances:
        return InstanceRationale(nothing_rationale(rng).reasoning, (), (), ())
    count = _COUNTS[len(instances)]
    things = "instance" if rng.random() < 0.5 else "object"
    several = len(instances) > 1
    things, verb = (f"{things}s", "stand") if several else (things, "stands")
    if more:
        count = f"more than {count}"
        opening = rng.choice(
            (
                f"{count} {things} stand out, and these are the largest",
                f"the eye finds {count} {things}, of which these are the largest",
            )
        )
    else:
        opening = rng.choice((f"{count} {things} {verb} out", f"the eye finds {count} {things}"))
    ending = _difference(wordings, rng) if several else "The rest is background."
    looks = [rng.random() < (0.6 if len(instances) < 3 else 0.4) for _ in instances]
    everyone = (*instances, *more)
    # What is told least is left out first: the looks, then the places that tell nothing apart.
    for detail in (2, 1, 0):
        writers = [Writer(rng, wording.stated) for wording in wordings]
        described = [
            _described(everyone, index, wordings[index], writer, detail, looks[index] and len(instances) < 4)
            for index, writer in enumerate(writers)
        ]
        reasoning = f"{opening.capitalize()}: {'; '.join(described)}. {ending}"
        if len(reasoning.split()) <= LONGEST:
            break
    rival = rival_sentence(around, Writer(rng)) if around is not None else ""
    if rival and len(f"{reasoning} {rival}".split()) <= LONGEST:
        reasoning = f"{reasoning.removesuffix(' The rest is background.')} {rival}"
    return InstanceRationale(
        reasoning,
        tuple(wording.expression for wording in wordings),
        tuple(described),
        tuple(tuple(writer.stated) for writer in writers),
    )


def _wordings(instances: Sequence[InstanceFacts], index: int, step: Step, noun: str) -> list[Wording]:
    """Return the wordings with this noun that are true of this instance alone."""
    called = [other for other, facts in enumerate(instances) if other == index or facts.called.fits(noun)]
    options = {other: _ways(instances, called, other, noun, step) for other in called}
    own = options[index]
    if len(called) == 1:
        order = (Way.PLACE, Way.NAME) if len(instances) > 1 else (Way.NAME, Way.PLACE)
        return [own[way] for way in order if way in own]
    for_all = [way for way in own if all(way in ways for ways in options.values())]
    return [own[way] for way in dict.fromkeys((*for_all, *own))]


def _ways(
    instances: Sequence[InstanceFacts], called: Sequence[int], index: int, noun: str, step: Step
) -> dict[Way, Wording]:
    """Return how an instance can be told from all others of `called`, which the noun could name too."""
    cues = instances[index].cues
    rivals = [instances[other].cues for other in called if other != index]
    ways: dict[Way, Wording] = {}

    def add(way: Way, expression: str, *stated: tuple[Kind, str]) -> None:
        ways[way] = Wording(expression, noun, step, way, stated)

    if not rivals:
        add(Way.NAME, f"the {noun}")
    place = clear_place(cues)
    if place and not any(rival.holds(Kind.PLACE, place, Level.TOLERANT) for rival in rivals):
        add(Way.PLACE, f"the {noun} {PHRASES[Kind.PLACE][place][0]}", (Kind.PLACE, place))
    if not rivals:
        return ways
    order = _order(cues, rivals)
    if order is not None:
        rank, side, pair = order
        add(Way.ORDER, f"the {pair} {noun}" if len(rivals) == 1 else f"the {rank} {noun} from the {side}")
    if all(cues.area >= LARGER * rival.area for rival in rivals):
        add(Way.SIZE, f"the {'larger' if len(rivals) == 1 else 'largest'} {noun}")
    elif all(LARGER * cues.area <= rival.area for rival in rivals):
        add(Way.SIZE, f"the {'smaller' if len(rivals) == 1 else 'smallest'} {noun}")
    colour = _colour(instances[index], noun)
    if colour and all(rival.colours[Level.PLAIN][colour] <= 0.2 for rival in rivals):
        add(Way.COLOUR, f"the {colour} {noun}", (Kind.COLOUR, colour))
    return ways


def _colour(facts: InstanceFacts, noun: str) -> str | None:
    """The clear colour, not that of a person's clothes, by whichever noun the person goes."""
    if any(is_person(word) for _, word in facts.called.words):
        return None
    return clear_colour(facts.cues, noun)


def _order(cues: Cues, rivals: Sequence[Cues]) -> tuple[str, str, str] | None:
    """Rank, the side it is counted from, and the word for one of two; None where neighbours are too close."""
    for axis, (sides, words) in _AXES.items():
        own, others = getattr(cues, axis), [getattr(rival, axis) for rival in rivals]
        if all(abs(own - other) >= APART for other in others):
            before = sum(other < own for other in others)
            after = len(others) - before
            far = after < before
            return ORDINALS[after if far else before], sides[far], words[far]
    return None


def _described(
    instances: Sequence[InstanceFacts], index: int, wording: Wording, writer: Writer, detail: int, look: bool
) -> str:
    """The expression, where the instance is if that does not say it, and how it looks."""
    cues = instances[index].cues
    text = wording.expression
    if detail >= 1 and wording.way not in (Way.PLACE, Way.ORDER):
        place = clear_place(cues)
        order = _order(cues, [other.cues for each, other in enumerate(instances) if each != index])
        if place is not None:
            text += f" {writer.say(Kind.PLACE, place)}"
        elif order is not None and len(instances) > 1:
            text += f", {order[0]} from the {order[1]}"
    if detail < 2 or not look:
        return text
    size, colour = next(iter(cues.clear(Kind.SIZE)), None), _colour(instances[index], wording.noun)
    looks = []
    if size and wording.way is not Way.SIZE:
        size = "large" if size == "most" else size
        looks.append(writer.say(Kind.SIZE, size, PHRASES[Kind.SIZE][size][0]))
    if colour and wording.way is not Way.COLOUR:
        looks.append(writer.say(Kind.COLOUR, colour, f"mostly {colour}"))
    return f"{text}, {' and '.join(looks)}" if looks else text


def _difference(wordings: Sequence[Wording], rng: Random) -> str:
    """Return what tells the instances apart."""
    nouns = [wording.noun for wording in wordings]
    told = [wording.way for wording in wordings if nouns.count(wording.noun) > 1]
    if not told:
        return rng.choice(("They differ in name.", "Each has a name of its own."))
    ways = " and ".join(way.value for way in Way if way in told)
    if len(set(nouns)) == 1:
        return rng.choice(
            (f"They share a name and differ in {ways}.", f"Of one name, they differ in {ways}.")
        )
    return rng.choice((f"Those of one name differ in {ways}.", f"Those that share a name differ in {ways}."))
