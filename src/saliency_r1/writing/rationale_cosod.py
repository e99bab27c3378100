"""Rationales of groups: what the images share, what is set aside, and where the shared object is.

The truth is known, only what is clear is said, and the one expression names the shared object without a
place, since it is to be found in every image. The wording is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import Cues
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import OBJECT, NameBook, is_person, subject_of
from saliency_r1.language.statements import Kind
from saliency_r1.wording import ORDINALS
from saliency_r1.writing.openings import clear_colour, clear_place
from saliency_r1.writing.rationale import FIRST, Step, Writer

MOST_IMAGES = 6
LONGEST = 70
"""Words in a reasoning."""
_PLACES_SAID, _NAMES_SAID = 2, 3


@dataclass(frozen=True)
class GroupImage:
    """One image of a group.

    Attributes:
        cues: measured on the mask of the shared object.
        others: what else is known to be in it.
    """

    cues: Cues
    others: tuple[Synset, ...] = ()


@dataclass(frozen=True)
class GroupWording:
    """A name for the shared object: the expression, its noun, and what kind of noun that is."""

    expression: str
    noun: str
    step: Step


@dataclass(frozen=True)
class GroupRationale:
    """A reasoning over a group.

    Attributes:
        reasoning: at most 70 words.
        expressions: the one expression.
        stated: index of the image, kind and value of each cue statement.
        noun: noun of the expression.
    """

    reasoning: str
    expressions: tuple[str, ...]
    stated: tuple[tuple[int, Kind, str], ...]
    noun: str


def word_group(
    shared: Synset, others: Sequence[Synset], rng: Random, names: NameBook
) -> tuple[GroupWording, ...]:
    """The wordings of the shared object, the preferred one first.

    A noun that could be said of another object too is left out, "object" included.

    Args:
        shared: what the images share.
        others: what else is known to be in any of them.
        rng: chooses the kind of noun that is preferred.
        names: how to call them.

    Returns:
        None at all if every noun could be said of another object.
    """
    name = names.name(shared)
    synonym, hypernym, _ = names.rewordings(shared)
    kinds = [Nouns.of(other, names).kinds | {names.name(other), OBJECT} for other in others]
    first = rng.choices((Step.NAME, Step.HYPERNYM, Step.OBJECT), FIRST)[0]
    nouns = [(Step.NAME, name), (Step.SYNONYM, synonym), (Step.HYPERNYM, hypernym), (Step.OBJECT, OBJECT)]
    nouns.sort(key=lambda each: each[0] is not first)
    wordings: dict[str, GroupWording] = {}
    for step, noun in nouns:
        if noun is not None and not any(noun in each for each in kinds):
            wordings.setdefault(noun, GroupWording(f"the {noun}", noun, step))
    return tuple(wordings.values())


def write_group(
    images: Sequence[GroupImage], wording: GroupWording, rng: Random, names: NameBook
) -> GroupRationale:
    """The reasoning that leads to this expression.

    Args:
        images: images of one group, two to six.
        wording: how the shared object is called.
        rng: chooses among phrases; the same state gives the same text.
        names: how to call what is set aside.

    Raises:
        SaliencyError: for fewer or more images.
    """
    if not 2 <= len(images) <= MOST_IMAGES:
        raise SaliencyError(f"a group of {len(images)} images: expected 2 to {MOST_IMAGES}")
    opening = rng.choice(
        (
            f"What these images share is the {wording.noun}.",
            f"Each of these images shows the {wording.noun}.",
            f"The {wording.noun} is in every image.",
        )
    )
    aside = _aside(images, rng, names)
    ending = f"So the answer is {wording.expression}."
    stated: list[tuple[int, Kind, str]] = []
    middle = [aside]
    length = len(f"{opening} {aside} {ending}".split())
    subject = f"the {subject_of(wording.noun)}" if is_person(wording.noun) or aside else "it"
    for sentence in (_where, _look):
        text, said = sentence(images, wording.noun, subject, rng)
        if text and length + len(text.split()) <= LONGEST:
            middle.append(text)
            length += len(text.split())
            stated += said
    return GroupRationale(
        " ".join([opening, *middle, ending]), (wording.expression,), tuple(stated), wording.noun
    )


def _aside(images: Sequence[GroupImage], rng: Random, names: NameBook) -> str:
    """Return what only some of the images show; without known others, what is true of any group."""
    found = Counter(name for image in images for name in {names.name(other) for other in image.others})
    known = [name for name, count in found.items() if count < len(images) and name != OBJECT]
    if not known:
        return rng.choice(
            (
                "The rest changes from image to image and is set aside.",
                "What is around it changes and is set aside.",
            )
        )
    nouns = [f"the {name}" for name in known[:_NAMES_SAID]]
    listed = f"{', '.join(nouns[:-1])} and {nouns[-1]}" if len(nouns) > 1 else nouns[0]
    some = "one image" if all(found[name] == 1 for name in known[:_NAMES_SAID]) else "some images"
    verb = "are" if len(nouns) > 1 else "is"
    text = f"{listed} {verb} in {some} alone and {verb} set aside."
    return text[0].upper() + text[1:]


def _where(
    images: Sequence[GroupImage], noun: str, subject: str, rng: Random
) -> tuple[str, list[tuple[int, Kind, str]]]:
    """Return where the shared object is in a few of the images."""
    places = [(index, clear_place(image.cues)) for index, image in enumerate(images)]
    clear = [(index, place) for index, place in places if place is not None]
    chosen = sorted(rng.sample(clear, min(_PLACES_SAID, len(clear))))
    if not chosen:
        return "", []
    writer = Writer(rng)
    said: list[str] = []
    for number, (index, place) in enumerate(chosen):
        where = f"in the {ORDINALS[index]}" + (" image" if number == 0 else "")
        same = number > 0 and place == chosen[number - 1][1]
        said.append(where if same else f"{writer.say(Kind.PLACE, place)} {where}")
    text = f"{subject.capitalize()} is {' and '.join(said)}."
    return text, [(index, Kind.PLACE, place) for index, place in chosen]


def _look(
    images: Sequence[GroupImage], noun: str, subject: str, rng: Random
) -> tuple[str, list[tuple[int, Kind, str]]]:
    """The colour that it has in every image, if it has one; an "object" may be a person, who has none."""
    if noun == OBJECT:
        return "", []
    colours = {clear_colour(image.cues, noun) for image in images}
    colour = colours.pop() if len(colours) == 1 else None
    if colour is None:
        return "", []
    text = f"{subject.capitalize()} is {Writer(rng).say(Kind.COLOUR, colour, f'mostly {colour}')} in each."
    return text, [(index, Kind.COLOUR, colour) for index in range(len(images))]
