"""Rationales: reasoning written from what is known to be salient, so that it leads to the expression.

Reasoning "from output": the mask is known, cues are measured on it, and sentences are put together from
those that are clear: what is there and where, how large it is and of what colour, why it stands out, then
the expression. Every cue is said in a phrase of `statements.PHRASES`, so it can be read back and checked.
The order of argument, from the ground truth to a chain of thought that leads to it, is that of Saliency-R1
(arXiv 2511.00396); the wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

import numpy as np

from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import Cues
from saliency_r1.language.naming import OBJECT, NameBook, is_person, subject_of, with_article
from saliency_r1.language.statements import PHRASES, Kind
from saliency_r1.masks import iou

SHORTEST, LONGEST = 25, 55
"""Words in a reasoning."""
LONGEST_EXPRESSION = 8
"""Words in an expression."""
FIRST = (0.75, 0.15, 0.1)
"""How often the name, the hypernym and "object" are preferred. A policy that learns from all three has a word
left for what it cannot tell: when every name is unlikely, the vaguer word is the likeliest."""


class Step(StrEnum):
    """How a rationale's expression was worded; the order in which they are tried."""

    NAME = "name"
    PLAIN = "plain"
    PLACE = "place"
    SYNONYM = "synonym"
    HYPERNYM = "hypernym"
    OBJECT_PLACE = "object with place"
    OBJECT = "object"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Rationale:
    """A reasoning and the expressions it leads to.

    Attributes:
        reasoning: 25 to 55 words.
        expressions: one referring expression of at most 8 words; none if nothing stands out.
        stated: kind and value of each cue statement that was written, in no order. One that is repeated
            counts again.
        step: how the expression was worded.
    """

    reasoning: str
    expressions: tuple[str, ...]
    stated: tuple[tuple[Kind, str], ...]
    step: Step


@dataclass(frozen=True)
class Consistency:
    """What became of a sample's rationales.

    Attributes:
        rationale: the first whose expression found the mask; None if none did.
        iou: of its mask; of the best one tried if it was dropped.
        tried: how many expressions were segmented.
    """

    rationale: Rationale | None
    iou: float
    tried: int

    @property
    def outcome(self) -> str:
        """`kept`, the step of the rewording (`synonym`, `object`, ...), or `dropped`: what to count."""
        if self.rationale is None:
            return "dropped"
        return "kept" if self.tried == 1 else self.rationale.step.value


def write_rationale(
    cues: Cues, synset: Synset | None = None, rng: Random | None = None, *, names: NameBook | None = None
) -> Rationale:
    """The preferred rationale of an object. See `write_candidates`."""
    return write_candidates(cues, synset, rng, names=names)[0]


def write_candidates(
    cues: Cues, synset: Synset | None = None, rng: Random | None = None, *, names: NameBook | None = None
) -> tuple[Rationale, ...]:
    """Rationales of one object, the preferred one first, no two with the same expression.

    Args:
        cues: measured on the true mask.
        synset: what the object is, if that is known.
        rng: chooses among the wordings; the same state gives the same texts. Unseeded if not given.
        names: how to call a synset; from the synset alone if not given.

    Returns:
        At least one. For an empty mask exactly one, without an expression.
    """
    rng = rng or Random()
    if cues.empty:
        return (nothing_rationale(rng),)
    synonym, hypernym, name = None, None, OBJECT
    if synset is not None:
        names = names or NameBook({synset: 1}, minimum=1)
        name = names.name(synset)
        synonym, hypernym, _ = names.rewordings(synset)
    if is_person(name):
        # The colour is that of the clothes, whatever the person is called in a text.
        none = {level: dict.fromkeys(shares, 0.0) for level, shares in cues.colours.items()}
        cues = replace(cues, colours=none)
    first = rng.choices((Step.NAME, Step.HYPERNYM, Step.OBJECT), FIRST)[0]
    nouns: list[tuple[Step, str | None]] = [
        (Step.NAME, name),
        (Step.PLAIN, name),
        (Step.PLACE, name),
        (Step.SYNONYM, synonym),
        (Step.HYPERNYM, hypernym),
        (Step.OBJECT_PLACE, OBJECT),
        (Step.OBJECT, OBJECT),
    ]
    nouns.sort(key=lambda each: each[0] is not first)
    rationales: dict[str, Rationale] = {}
    for step, noun in nouns:
        if noun is None:
            continue
        expression, stated = _expression(cues, noun, step, rng)
        if expression not in rationales:
            rationales[expression] = _write(cues, noun, expression, stated, step, rng)
    return tuple(rationales.values())


def consistent(
    candidates: Sequence[Rationale],
    segment: Callable[[str], np.ndarray],
    mask: np.ndarray,
    minimum_iou: float = 0.7,
) -> Consistency:
    """The first rationale whose expression finds the true mask again.

    Args:
        candidates: as `write_candidates` gives them.
        segment: a frozen referring segmenter on this picture: expression to probabilities (H, W) in [0, 1].
        mask: the true mask, bool (H, W).
        minimum_iou: of the segmenter's mask at 0.5 and the true one.

    Raises:
        SaliencyError: if a predicted mask has another shape than the true one.
    """
    best = 0.0
    for tried, rationale in enumerate(candidates, start=1):
        found = np.zeros(mask.shape, bool)
        for expression in rationale.expressions:
            probabilities = np.asarray(segment(expression))
            if probabilities.shape != mask.shape:
                raise SaliencyError(f"the segmenter gave {probabilities.shape} for a mask of {mask.shape}")
            found |= probabilities >= 0.5
        overlap = iou(found, mask)
        if overlap >= minimum_iou:
            return Consistency(rationale, overlap, tried)
        best = max(best, overlap)
    return Consistency(None, best, len(candidates))


class Writer:
    """Chooses wordings and keeps account of what was stated.

    Args:
        rng: makes every choice.
        stated: what was stated already.
    """

    def __init__(self, rng: Random, stated: Iterable[tuple[Kind, str]] = ()) -> None:
        self.rng = rng
        self.stated = list(stated)

    def choose(self, *options: str) -> str:
        """One of the options."""
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.rng.random() < probability

    def say(self, kind: Kind, value: str, phrase: str | None = None) -> str:
        """State a cue in one of its phrases, or in a wording that the parser reads without one."""
        self.stated.append((kind, value))
        return phrase or self.rng.choice(PHRASES[kind][value])


def _expression(cues: Cues, noun: str, step: Step, rng: Random) -> tuple[str, list[tuple[Kind, str]]]:
    """A noun phrase with those modifiers that the step calls for and the cues allow, and what it states."""
    place, size, colour = clear_place(cues), next(iter(cues.clear(Kind.SIZE)), None), clear_colour(cues, noun)
    chances = {
        Step.NAME: (0.2 if place == "centre" else 0.4, 0.1, 0.1),
        Step.PLACE: (1.0, 0.0, 0.0),
        Step.OBJECT_PLACE: (1.0, 0.0, 1.0),
    }.get(step, (0.0, 0.0, 0.0))
    # All three are drawn, so that one cue more or less does not change what is said of the others.
    with_place, with_size, with_colour = (rng.random() < chance for chance in chances)
    parts = {
        # What is tiny is small too, and segmenters know "small".
        "size": {"tiny": "small", "small": "small", "large": "large"}.get(size or "") if with_size else None,
        "colour": colour if with_colour else None,
        "place": place if with_place else None,
    }
    for shed in ("size", "colour", "place", None):
        words = ["the", parts["size"], parts["colour"], noun]
        words.append(PHRASES[Kind.PLACE][parts["place"]][0] if parts["place"] else None)
        expression = " ".join(word for word in words if word)
        if len(expression.split()) <= LONGEST_EXPRESSION or shed is None:
            break
        parts[shed] = None
    kinds = {"size": Kind.SIZE, "colour": Kind.COLOUR, "place": Kind.PLACE}
    return expression, [(kinds[part], value) for part, value in parts.items() if value]


def clear_place(cues: Cues) -> str | None:
    """Where the object clearly is, one of `PLACES`."""
    return next((value for value in cues.clear(Kind.PLACE) if not value.endswith(("edge", "areas"))), None)


def clear_colour(cues: Cues, noun: str) -> str | None:
    """The object's colour, where a viewer would speak of it: not a person's, nor "an orange orange"."""
    if is_person(noun):
        return None
    own = (value for value in cues.clear(Kind.COLOUR) if not value.startswith("background"))
    return next((value for value in own if value not in noun.split()), None)


def _write(
    cues: Cues, noun: str, expression: str, stated: Iterable[tuple[Kind, str]], step: Step, rng: Random
) -> Rationale:
    """Sentences that end in the expression; those in the middle are left out where they would be too many."""
    writer = Writer(rng, stated)
    subject = f"the {subject_of(noun)}" if is_person(noun) else "it"
    opening = _opening(cues, noun, writer)
    ending = _ending(cues, expression, writer)
    middle: list[str] = []
    length = len(f"{opening} {ending}".split())
    for sentence in (_look, _contrast):
        attempt = Writer(rng)
        if middle and "background" in middle[-1]:
            subject = f"the {subject_of(noun)}"  # "it" would be the background
        text = sentence(cues, noun, subject, attempt)
        if text and length + len(text.split()) <= LONGEST:
            middle.append(text)
            length += len(text.split())
            writer.stated += attempt.stated
    fillers = ["This is what a viewer would look at first.", "No other thing here draws the eye as much."]
    while length < SHORTEST:
        middle.append(fillers.pop(rng.randrange(len(fillers))))
        length += len(middle[-1].split())
    return Rationale(" ".join([opening, *middle, ending]), (expression,), tuple(writer.stated), step)


def _opening(cues: Cues, noun: str, writer: Writer) -> str:
    """What is there, and where.

    Always with "the": "a" or "an" would have to be chosen before the noun, for all nouns alike.
    """
    place = clear_place(cues)
    if place is None:
        return writer.choose(
            f"What draws the eye in this picture is the {noun}.",
            f"The picture shows the {noun}, which stands out from the rest.",
            f"The eye goes first to the {noun}.",
        )
    where = writer.say(Kind.PLACE, place)
    return writer.choose(
        f"What draws the eye in this picture is the {noun} {where}.",
        f"The picture shows the {noun} {where}, which stands out from the rest.",
        f"The eye goes first to the {noun} {where} of the picture.",
        f"{where.capitalize()} of the picture the {noun} draws the eye.",
    )


def _look(cues: Cues, noun: str, subject: str, writer: Writer) -> str:
    """Size, colour, edges, background: what is clear, each in a place of its own.

    No cue stands before a noun: there it would compete with every noun, and a likely cue beats them all.
    """
    size, colour = next(iter(cues.clear(Kind.SIZE)), None), clear_colour(cues, noun)
    clear = cues.clear(Kind.COLOUR)
    background = next((value for value in clear if value.startswith("background")), None)
    predicates: list[str] = []
    if size and writer.chance(0.85):
        said = writer.say(Kind.SIZE, size)
        predicates.append(said if said.split()[0] in ("takes", "fills") else f"is {said}")
    if colour:
        said = writer.say(
            Kind.COLOUR, colour, f"is {writer.choose(f'mostly {colour}', f'{colour} in colour')}"
        )
        if background and writer.chance(0.6):
            tone = background.removeprefix("background ")
            said += " against " + with_article(writer.say(Kind.COLOUR, background, f"{tone} background"))
            background = None
        predicates.append(said)
    edges = [value for value in cues.clear(Kind.PLACE) if value.endswith(("edge", "areas"))]
    if edges and len(predicates) < 2 and writer.chance(0.5):
        predicates.append(writer.say(Kind.PLACE, edges[-1] if edges[-1].endswith("areas") else edges[0]))
    text = f"{subject.capitalize()} {' and '.join(predicates)}." if predicates else ""
    if background and len(predicates) < 2 and writer.chance(0.6):
        clause = f"the {writer.say(Kind.COLOUR, background, 'background is mostly ' + background.split()[1])}"
        text = f"{text[:-1]}, and {clause}." if text else f"{clause.capitalize()}."
    return text


def _contrast(cues: Cues, noun: str, subject: str, writer: Writer) -> str:
    """Why it stands out, or that it hardly does."""
    clear = cues.clear(Kind.CONTRAST)
    compared = [
        value for value in clear if value in ("lighter", "darker", "more colourful", "less colourful")
    ]
    said: list[str] = []
    if compared:
        words = [writer.say(Kind.CONTRAST, value, value) for value in compared[:2]]
        said.append(f"is {' and '.join(words)} than the surroundings")
    if "strong" in clear and (not compared or writer.chance(0.5)):
        around = "them" if compared else "the surroundings"
        said.append(f"stands in {writer.say(Kind.CONTRAST, 'strong')} to {around}")
    if "little" in clear:
        said.append(f"has {writer.say(Kind.CONTRAST, 'little')} with the surroundings")
    if "sharper" in clear and len(said) < 2:
        said.append(f"is {writer.say(Kind.CONTRAST, 'sharper', 'sharper')} than the background")
    if not said:
        return ""
    link = " but " if "little" in clear and len(said) > 1 else " and "
    return f"{subject.capitalize()} {link.join(said)}."


def _ending(cues: Cues, expression: str, writer: Writer) -> str:
    """The conclusion, with the expression."""
    if cues.area > 0.95:
        return f"So the answer is {expression}."
    return writer.choose(
        f"The rest of the picture is background, so the answer is {expression}.",
        f"Everything else is background, so the answer is {expression}.",
        f"So the answer is {expression}, and the rest is background.",
    )


def nothing_rationale(rng: Random) -> Rationale:
    """The rationale of a picture in which nothing stands out, whatever was asked."""
    writer = Writer(rng)
    said = writer.say(Kind.SIZE, "nothing")
    reasoning = writer.choose(
        f"In this picture {said}. No thing in it is set apart from the rest, so there is no object to name "
        "and the answer is empty.",
        f"The eye finds no object to rest on here: {said}. All of the picture is background, so the answer "
        "is to be left empty.",
    )
    return Rationale(reasoning, (), tuple(writer.stated), Step.NOTHING)
