"""Rationales: reasoning written from what is known to be salient, so that it leads to the expression.

Reasoning "from output": the mask is known, cues are measured on it, and sentences are put together from
those that are clear: what is there and what is most unusual about it (`openings.py`), how large it is and of
what colour, why it stands out, what else could draw the eye and why it does not, then the expression. The
wording follows from what is measured, because a policy that decodes greedily makes one text of a free choice.
Every cue is said in a phrase of `statements.PHRASES`, so it can be read back and checked. The order of
argument, from the ground truth to a chain of thought that leads to it, is that of Saliency-R1 (arXiv
2511.00396); the wording is ours.
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
from saliency_r1.writing.openings import clear_colour, clear_place, open_with

SHORTEST, LONGEST = 25, 60
"""Words in a reasoning."""
LONGEST_EXPRESSION = 8
"""Words in an expression."""
FIRST = (0.6, 0.28, 0.12)
"""The odds with which the name, the hypernym and "object" are preferred. A policy that is told a word, see
`nano.name_reader`, learns to use whichever it is told."""


class Step(StrEnum):
    """The wordings of a rationale's expression, in the order in which they are tried."""

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
        reasoning: 25 to 60 words.
        expressions: one referring expression of at most 8 words; none if nothing stands out.
        stated: kind and value of each cue statement that was written, in no order. One that is repeated
            counts again.
        step: how the expression was worded.
        nouns: what each expression calls its object.
    """

    reasoning: str
    expressions: tuple[str, ...]
    stated: tuple[tuple[Kind, str], ...]
    step: Step
    nouns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Consistency:
    """The outcome of a sample's rationales.

    Attributes:
        rationale: the first whose expression found the mask; None if none did.
        iou: IoU of its mask, or of the best one tried if it was dropped.
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
    above: tuple[str, ...] = ()
    if synset is not None:
        names = names or NameBook({synset: 1}, minimum=1)
        name, above = names.name(synset), names.chain(synset)
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
            rationales[expression] = _write(cues, noun, above, expression, stated, step, rng)
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
        minimum_iou: least IoU of the segmenter's mask at 0.5 and the true one.

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

    def told(self, kind: Kind, value: str) -> bool:
        """Whether that was stated already."""
        return (kind, value) in self.stated

    def say(self, kind: Kind, value: str, phrase: str | None = None) -> str:
        """State a cue in its first phrase, or in another wording that the parser reads."""
        self.stated.append((kind, value))
        return phrase or PHRASES[kind][value][0]


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


def _write(
    cues: Cues,
    noun: str,
    above: tuple[str, ...],
    expression: str,
    stated: Iterable[tuple[Kind, str]],
    step: Step,
    rng: Random,
) -> Rationale:
    """Sentences that end in the expression; those in the middle are left out where they would be too many."""
    writer = Writer(rng, stated)
    subject = f"the {subject_of(noun)}" if is_person(noun) else "it"
    opening = open_with(cues, noun, writer, () if noun == OBJECT else above)
    ending = _ending(cues, expression, writer)
    middle: list[str] = []
    length = len(f"{opening} {ending}".split())
    for sentence in (_look, _contrast, _rest):
        attempt = Writer(rng, writer.stated)
        if middle and "background" in middle[-1]:
            subject = f"the {subject_of(noun)}"  # "it" would be the background
        text = sentence(cues, noun, subject, attempt)
        if text and length + len(text.split()) <= LONGEST:
            middle.append(text)
            length += len(text.split())
            writer.stated = attempt.stated
    fillers = ["This is what a viewer would look at first.", "No other thing here draws the eye as much."]
    while length < SHORTEST:
        middle.append(fillers.pop(rng.randrange(len(fillers))))
        length += len(middle[-1].split())
    return Rationale(" ".join([opening, *middle, ending]), (expression,), tuple(writer.stated), step, (noun,))


def _look(cues: Cues, noun: str, subject: str, writer: Writer) -> str:
    """Place, size, colour, edges, background: what is clear and not said yet, in that order.

    No cue stands before a noun: there it would compete with every noun, and a likely cue beats them all.
    """
    size, colour = next(iter(cues.clear(Kind.SIZE)), None), clear_colour(cues, noun)
    clear = cues.clear(Kind.COLOUR)
    background = next((value for value in clear if value.startswith("background")), None)
    place = clear_place(cues)
    predicates: list[str] = []
    if place and not writer.told(Kind.PLACE, place):
        predicates.append(f"is {writer.say(Kind.PLACE, place)}")
    if size and not writer.told(Kind.SIZE, size):
        said = writer.say(Kind.SIZE, size)
        predicates.append(said if said.split()[0] in ("takes", "fills") else f"is {said}")
    if colour and not writer.told(Kind.COLOUR, colour):
        said = writer.say(Kind.COLOUR, colour, f"is mostly {colour}")
        if background and not writer.told(Kind.COLOUR, background):
            tone = background.removeprefix("background ")
            said += " against " + with_article(writer.say(Kind.COLOUR, background, f"{tone} background"))
            background = None
        predicates.append(said)
    edges = [value for value in cues.clear(Kind.PLACE) if value.endswith(("edge", "areas"))]
    edges = [value for value in edges if not writer.told(Kind.PLACE, value)]
    if edges and len(predicates) < 2:
        predicates.append(writer.say(Kind.PLACE, edges[-1] if edges[-1].endswith("areas") else edges[0]))
    text = f"{subject.capitalize()} {' and '.join(predicates)}." if predicates else ""
    if background and len(predicates) < 2 and not writer.told(Kind.COLOUR, background):
        clause = f"the {writer.say(Kind.COLOUR, background, 'background is mostly ' + background.split()[1])}"
        text = f"{text[:-1]}, and {clause}." if text else f"{clause.capitalize()}."
    return text


def _contrast(cues: Cues, noun: str, subject: str, writer: Writer) -> str:
    """Why it stands out, or that it hardly does."""
    clear = [value for value in cues.clear(Kind.CONTRAST) if not writer.told(Kind.CONTRAST, value)]
    compared = [
        value for value in clear if value in ("lighter", "darker", "more colourful", "less colourful")
    ]
    said: list[str] = []
    if compared:
        words = [writer.say(Kind.CONTRAST, value, value) for value in compared[:2]]
        said.append(f"is {' and '.join(words)} than the surroundings")
    if "strong" in clear and not compared:
        said.append(f"stands in {writer.say(Kind.CONTRAST, 'strong')} to the surroundings")
    if "little" in clear:
        said.append(f"has {writer.say(Kind.CONTRAST, 'little')} with the surroundings")
    if "sharper" in clear and len(said) < 2:
        said.append(f"is {writer.say(Kind.CONTRAST, 'sharper', 'sharper')} than the background")
    if not said:
        return ""
    link = " but " if "little" in clear and len(said) > 1 else " and "
    return f"{subject.capitalize()} {link.join(said)}."


_REST = ("more colourful", "lighter", "darker")
"""Statements on the background that could draw the eye away from an object, the strongest first."""


def _rest(cues: Cues, noun: str, subject: str, writer: Writer) -> str:
    return rival_sentence(cues, writer)


def rival_sentence(cues: Cues, writer: Writer) -> str:
    """Say which part of the background could be taken for what stands out, and why it is not; "" if none."""
    clear = cues.clear(Kind.REST)
    value = next((value for what in _REST for value in clear if value.endswith(what)), None)
    if value is None:
        return ""
    said = writer.say(Kind.REST, value)
    if value.endswith("darker"):
        return f"{said.capitalize()}, but nothing there is set apart."
    return f"{said.capitalize()} and could draw the eye, but it belongs to the background."


def _ending(cues: Cues, expression: str, writer: Writer) -> str:
    """The conclusion, with the expression."""
    if cues.area > 0.95:
        return f"So the answer is {expression}."
    if clear_place(cues) is None:
        return f"Everything else is background, so the answer is {expression}."
    if cues.clear(Kind.SIZE):
        return f"The rest of the picture is background, so the answer is {expression}."
    return f"So the answer is {expression}, and the rest is background."


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
