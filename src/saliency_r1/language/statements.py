"""The vocabulary of cue statements, and the parser that finds them in a text.

A rationale is written from `PHRASES` and read back with it, so that whatever is said can be checked. A text
outside this vocabulary holds no statement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from saliency_r1.cue_limits import COLOURS, PLACES, SIDES

SIZES = ("tiny", "small", "medium", "large", "most")


class Kind(StrEnum):
    """The subject of a statement. Edges reached and separate areas count as place.

    `REST` is about the background on one side of the picture, compared with the object.
    """

    PLACE = "place"
    SIZE = "size"
    CONTRAST = "contrast"
    COLOUR = "colour"
    REST = "rest"


@dataclass(frozen=True)
class Statement:
    """One cue statement in a text.

    Attributes:
        kind: what it is about.
        value: what it says, a key of `PHRASES[kind]`.
        span: start and end of its phrase in the text, in characters.
        negated: whether the text denies it ("not red").
    """

    kind: Kind
    value: str
    span: tuple[int, int]
    negated: bool = False


def _place_phrases() -> dict[str, tuple[str, ...]]:
    phrases: dict[str, tuple[str, ...]] = {}
    for place in PLACES:
        preposition = "on the" if place in ("left", "right") else "in the" if place == "centre" else "at the"
        phrases[place] = (f"{preposition} {place}",)
    for side in SIDES:
        phrases[f"{side} edge"] = (f"reaches the {side} edge", f"touches the {side} edge")
    phrases["no edge"] = ("touches no edge", "keeps clear of the edges")
    phrases["two areas"] = ("covers two separate areas",)
    phrases["several areas"] = ("covers several separate areas",)
    return phrases


def _rest_phrases() -> dict[str, tuple[str, ...]]:
    sides = {side: side if side in ("top", "bottom") else f"{side} side" for side in SIDES}
    return {
        f"{side} {value}": (f"the {words} is {value}",)
        for side, words in sides.items()
        for value in ("lighter", "darker", "more colourful")
    }


def _colour_phrases() -> dict[str, tuple[str, ...]]:
    phrases: dict[str, tuple[str, ...]] = {}
    for colour in COLOURS:
        phrases[colour] = (f"mostly {colour}", f"{colour} in colour", f"main colour is {colour}")
        phrases[f"background {colour}"] = (f"{colour} background", f"background is mostly {colour}")
    return phrases


#: Every phrase that states a cue: kind, value, phrases. Beyond these a colour before a noun is read ("the red
#: ball"); a comparative counts only before "than the surroundings" or "than the background".
PHRASES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        Kind.PLACE: MappingProxyType(_place_phrases()),
        Kind.SIZE: MappingProxyType(
            {
                "tiny": ("tiny", "takes up very little of the picture"),
                "small": ("small", "takes up a small part of the picture"),
                "medium": ("medium-sized", "of medium size"),
                "large": ("large", "takes up a large part of the picture"),
                "most": ("fills most of the picture", "takes up most of the picture"),
                "nothing": ("nothing stands out",),
            }
        ),
        Kind.CONTRAST: MappingProxyType(
            {
                "lighter": ("lighter", "brighter"),
                "darker": ("darker",),
                "more colourful": ("more colourful",),
                "less colourful": ("less colourful", "duller"),
                "sharper": ("sharper", "in sharper focus"),
                "strong": ("strong contrast",),
                "little": ("little contrast",),
            }
        ),
        Kind.COLOUR: MappingProxyType(_colour_phrases()),
        Kind.REST: MappingProxyType(_rest_phrases()),
    }
)

# "lighter" alone may be said of anything; only a comparison with what is around the object is a statement
# about it.
_COMPARED = r"(?=[^.;:!?]*\bthan (?:its|the|their) (?:surroundings|background)\b)"
COMPARATIVES = ("lighter", "darker", "more colourful", "less colourful", "sharper")
"""Values of contrast that are said in comparison with the surroundings or the background."""

# The words that may follow a noun: "the orange on the left" names a fruit, "the orange ball" states a colour.
_AFTER_A_NOUN = (
    "a|an|and|are|as|at|background|be|because|but|by|can|catches|comes|covers|draws|fills|first|for|from|has|here|in|is"
    "|it|its|keeps|lies|marks|nor|not|of|on|or|rather|reaches|shows|since|so|stands|take|takes|than|that|the|then|there"
    "|this|to|touches|was|which|while|with"
)
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|without|hardly|isn't)\s+(?:[a-z-]+\s+)?$")


@cache
def _pattern() -> tuple[re.Pattern[str], dict[str, tuple[Kind, str]]]:
    meanings: dict[str, tuple[Kind, str]] = {}
    alternatives: list[tuple[str, str]] = []
    for kind, values in PHRASES.items():
        for value, phrases in values.items():
            for phrase in phrases:
                meanings[phrase] = (kind, value)
                after = _COMPARED if value in COMPARATIVES else ""
                if kind is Kind.PLACE and value in PLACES:
                    after = r"(?! (?:edges?|left|right)\b)"
                alternatives.append((phrase, re.escape(phrase) + r"(?![\w-])" + after))
    noun_follows = rf"(?= (?!(?:{_AFTER_A_NOUN})\b)[a-z])"
    for colour in COLOURS:
        meanings[colour] = (Kind.COLOUR, colour)
        alternatives.append((colour, colour + noun_follows))
    alternatives.sort(key=lambda alternative: -len(alternative[0]))
    return re.compile(r"(?<![\w-])(?:" + "|".join(source for _, source in alternatives) + ")"), meanings


def parse_statements(text: str) -> list[Statement]:
    """The cue statements in a text, in the order in which they are said.

    Phrases are read without regard to case and to the kind of white space, the longest first. One that a word
    of negation in the same sentence directly precedes is marked as negated.
    """
    # Same length, so that spans hold for the text as given: a few letters change length when lowered.
    plain = "".join(
        " " if letter.isspace() else lower if len(lower := letter.lower()) == 1 else letter for letter in text
    )
    pattern, meanings = _pattern()
    statements = []
    for match in pattern.finditer(plain):
        kind, value = meanings[match.group()]
        negated = _NEGATION.search(plain[max(0, match.start() - 60) : match.start()]) is not None
        statements.append(Statement(kind, value, match.span(), negated))
    return statements
