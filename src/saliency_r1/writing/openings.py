"""The beginning of a rationale: what is there, and what is most unusual about it.

The first sentence is the same for the same picture: its beginning follows from the kind of thing, its end
from the rarest cue that is clear, in the order of `_LEADS`. Kinds and leads together give more than a hundred
first sentences, none of which fits many pictures. The wording is ours.
"""

from __future__ import annotations

from typing import Protocol

from saliency_r1.language.cues import Cues
from saliency_r1.language.naming import OBJECT, is_person
from saliency_r1.language.statements import PHRASES, Kind


def clear_place(cues: Cues) -> str | None:
    """The place of the object if it is clear, one of `PLACES`."""
    return next((value for value in cues.clear(Kind.PLACE) if not value.endswith(("edge", "areas"))), None)


def clear_colour(cues: Cues, noun: str) -> str | None:
    """The object's colour, where a viewer would speak of it: not a person's, nor "an orange orange"."""
    if is_person(noun):
        return None
    own = (value for value in cues.clear(Kind.COLOUR) if not value.startswith("background"))
    return next((value for value in own if value not in noun.split()), None)


_BEGINNINGS = {
    "person": "The first look goes to the {noun}",
    "animal": "What catches the eye is the {noun}",
    "vehicle": "The picture is about the {noun}",
    "food": "The eye settles on the {noun}",
    "container": "The eye goes first to the {noun}",
    "instrument": "What draws attention is the {noun}",
    "furniture": "The scene is built around the {noun}",
    "clothing": "The most striking thing is the {noun}",
    OBJECT: "One thing is set apart, the {noun}",
    "thing": "What stands out is the {noun}",
}
_LEADS = (
    (Kind.PLACE, "several areas", ", which {phrase}"),
    (Kind.PLACE, "two areas", ", which {phrase}"),
    (Kind.SIZE, "tiny", ", which {phrase}"),
    (Kind.CONTRAST, "less colourful", ", which is less colourful than the surroundings"),
    (Kind.CONTRAST, "little", ", although it has {phrase} with the surroundings"),
    (Kind.CONTRAST, "more colourful", ", which is more colourful than the surroundings"),
    (Kind.CONTRAST, "lighter", ", which is lighter than the surroundings"),
    (Kind.CONTRAST, "sharper", ", which is sharper than the background"),
    (Kind.SIZE, "most", ", which {phrase}"),
    (Kind.COLOUR, None, ", which is mostly {value}"),
    (Kind.CONTRAST, "darker", ", which is darker than the surroundings"),
    (Kind.CONTRAST, "strong", ", in {phrase} to the surroundings"),
    (Kind.SIZE, "small", ", which {phrase}"),
    (Kind.PLACE, None, " {phrase} of the picture"),
    (Kind.SIZE, "large", ", which {phrase}"),
)
"""Kind, value (any, if None) and how it is said, the rarest in photos of salient objects first."""


class Teller(Protocol):
    """The account of statements, see `rationale.Writer`."""

    def say(self, kind: Kind, value: str, phrase: str | None = None) -> str:
        """State a cue; the words of it."""
        ...


def kind_of_thing(noun: str, above: tuple[str, ...] = ()) -> str:
    """The key of `_BEGINNINGS` that fits a noun with these wider words."""
    if is_person(noun) or "person" in above:
        return "person"
    return next((word for word in (noun, *above) if word in _BEGINNINGS), "thing")


def open_with(cues: Cues, noun: str, teller: Teller, above: tuple[str, ...] = ()) -> str:
    """The first sentence.

    Always with "the": "a" or "an" would have to be chosen before the noun, for all nouns alike.

    Args:
        cues: measured on the true mask.
        noun: how the object is called.
        teller: takes down what is stated.
        above: wider words for it.
    """
    beginning = _BEGINNINGS[kind_of_thing(noun, above)].format(noun=noun)
    for kind, wanted, text in _LEADS:
        value = _clear(cues, noun, kind, wanted)
        if value is None:
            continue
        phrase = PHRASES[kind][value][-1 if kind is Kind.SIZE else 0]
        teller.say(kind, value)
        return beginning + text.format(phrase=phrase, value=value) + "."
    return f"{beginning}, apart from all the rest."


def _clear(cues: Cues, noun: str, kind: Kind, wanted: str | None) -> str | None:
    if wanted is not None:
        return wanted if wanted in cues.clear(kind) else None
    return clear_place(cues) if kind is Kind.PLACE else clear_colour(cues, noun)
