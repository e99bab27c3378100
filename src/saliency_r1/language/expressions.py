"""Referring expressions for training the segmenter: what may be said of an object, and what may not.

Each expression is made from what is measured on the mask as the segmenter sees it, so a mirrored photo says
"left" where the original says "right". Ours; the field's referring sets (RefCOCO) hold people's phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saliency_r1.cue_limits import COLOURS
from saliency_r1.data.samples import Synset
from saliency_r1.language.naming import OBJECT, NameBook, is_person, subject_of

GENERIC = (
    "the salient object",
    "the most salient object",
    "the salient region",
    "the object",
    "the main object",
    "the main subject",
    "the thing",
    "what stands out",
    "the object that stands out",
    "the foreground object",
    "the salient objects",
    "the foreground",
)
NOUNS = ("object", "thing", "item", "one")
NOTHING = ("nothing", "nothing here", "nothing like that here", "no object", "nothing stands out")
UNKNOWN_NOUN = "xxx"
"""Stands for any noun outside the vocabulary; it is never in a word list."""

LARGE, SMALL = ("large", "big"), ("small", "little")
LARGER, SMALLER = ("larger", "bigger", "largest"), ("smaller", "smallest")
_SIDES = {"left": ("left",), "right": ("right",), "top": ("top", "upper"), "bottom": ("bottom", "lower")}
_CENTRE = ("centre", "center", "middle")

_ABSTRACT = frozenset(
    [
        "entity",
        "physical entity",
        "abstraction",
        "object",
        "whole",
        "artifact",
        "instrumentality",
        "living thing",
        "organism",
        "matter",
        "substance",
        "solid",
        "causal agent",
        "psychological feature",
        "event",
        "act",
        "activity",
        "device",
        "attribute",
        "relation",
        "thing",
        "commodity",
        "consumer goods",
        "group",
        "measure",
        "state",
        "unit",
        "part",
        "body",
    ]
)


@dataclass(frozen=True)
class Nouns:
    """The names that an object may have, in lower case.

    Attributes:
        names: the plain name and WordNet's.
        synonyms: other words for the same.
        hypernyms: words for more than it, the nearest first.
        kinds: every word that is true of it, for telling whether another noun could be said of it too.
    """

    names: tuple[str, ...]
    synonyms: tuple[str, ...]
    hypernyms: tuple[str, ...]
    kinds: frozenset[str]

    @classmethod
    def of(cls, synset: Synset, book: NameBook) -> Nouns:
        """The nouns for a synset: the book's name and rewordings, and WordNet's own."""
        name = book.name(synset)
        synonym, hypernym, _ = book.rewordings(synset)
        names = [name] if name != OBJECT else []
        names += [subject_of(name)] if subject_of(name) != name else []
        above = [word for word in synset.hypernyms if word not in _ABSTRACT][:3]
        kinds = {name, subject_of(name), synset.name, *synset.synonyms, *synset.hypernyms} | {
            synonym,
            hypernym,
        }
        kinds |= {"person"} if is_person(name) else set()
        return cls(
            _lowered([*names, synset.name]),
            _lowered([synonym, *synset.synonyms]),
            _lowered([hypernym, hypernym, *above]),
            frozenset(_lowered(kinds - _ABSTRACT)),
        )

    @property
    def human(self) -> bool:
        """Whether it is a person, whose clothes have colours."""
        return "person" in self.kinds

    def related(self, other: Nouns) -> bool:
        """Whether one noun of the other could be said of this: they share a word that is not abstract."""
        return bool(self.kinds & other.kinds)


def _lowered(words: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(word.lower() for word in words if word)


def vocabulary(nouns: Iterable[Nouns]) -> list[str]:
    """Every word that the expressions of these nouns can hold, sorted."""
    from saliency_r1.nano.words import words_of

    texts = [*GENERIC, *NOUNS, *NOTHING, *COLOURS, *LARGE, *SMALL, *LARGER, *SMALLER, *_CENTRE]
    texts += [word for words in _SIDES.values() for word in words] + ["on in at of the a an to"]
    for each in nouns:
        texts += [*each.names, *each.synonyms, *each.hypernyms]
    return sorted({word for text in texts for word in words_of(text)})


@dataclass(frozen=True)
class Region:
    """One object as the segmenter's training sees it.

    Attributes:
        mask: bool (H, W).
        nouns: what it is called, if known.
        colour: one of `COLOURS`, if it has a clear one.
    """

    mask: np.ndarray
    nouns: Nouns | None
    colour: str | None = None

    @cached_property
    def area(self) -> float:
        """Share of the picture, 0 to 1."""
        return float(self.mask.mean())

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Centroid (x, y), each 0 to 1; the middle for an empty mask."""
        rows, columns = np.nonzero(self.mask)
        if rows.size == 0:
            return 0.5, 0.5
        return float(columns.mean() + 0.5) / self.mask.shape[1], float(rows.mean() + 0.5) / self.mask.shape[0]

    def sides(self, margin: float = 0.1) -> list[str]:
        """Return those of left, right, top, bottom that are true; `centre` if it is near the middle."""
        x, y = (value - 0.5 for value in self.centre)
        sides = [
            side for side, far in (("left", -x), ("right", x), ("top", -y), ("bottom", y)) if far > margin
        ]
        return sides or (["centre"] if max(abs(x), abs(y)) < margin * 0.7 else [])


def sides_apart(region: Region, other: Region, margin: float = 0.15) -> list[str]:
    """Return those of left, right, top, bottom that distinguish `region` from `other`."""
    dx, dy = (a - b for a, b in zip(region.centre, other.centre, strict=True))
    return [
        side for side, far in (("left", -dx), ("right", dx), ("top", -dy), ("bottom", dy)) if far > margin
    ]


def pick_noun(region: Region, rng: np.random.Generator, plain: float) -> str:
    """A noun for the object; `plain` is the chance of "object" or of an unknown noun."""
    nouns = region.nouns
    if nouns is None or rng.random() < plain:
        return UNKNOWN_NOUN if rng.random() < 0.4 else str(rng.choice(NOUNS[:3]))
    draw = rng.random()
    if draw < 0.15 and nouns.synonyms:
        return str(rng.choice(nouns.synonyms))
    return str(rng.choice(nouns.hypernyms if draw < 0.4 and nouns.hypernyms else nouns.names))


def phrase(
    noun: str, rng: np.random.Generator, adjectives: Sequence[str] = (), sides: Sequence[str] = ()
) -> str:
    """An English noun phrase, such as "the small dog on the left" or "the left dog"."""
    words = [str(rng.choice(_SIDES.get(side, _CENTRE))) for side in ordered(sides)]
    place = " ".join(words)
    before = list(adjectives)
    after = ""
    if place and rng.random() < 0.4:
        before.append(place)
    elif place:
        link = "in" if words[0] in _CENTRE or len(words) > 1 else str(rng.choice(["on", "at", "in"]))
        after = f" {link} the {place}"
    article = "" if rng.random() < 0.1 else "the "
    return f"{article}{' '.join([*before, noun])}{after}"


def ordered(sides: Sequence[str]) -> list[str]:
    """Vertical before horizontal, as in "top left"."""
    return sorted(sides, key=lambda side: side in ("left", "right"))


def alone(region: Region, rng: np.random.Generator) -> str:
    """An expression for the only object of a photo."""
    if rng.random() < (0.35 if region.nouns else 0.6):
        return str(rng.choice(GENERIC))
    adjectives, sides = _traits(region, rng), region.sides()
    if rng.random() < 0.55:
        sides = []
    elif len(sides) > 1 and rng.random() < 0.5:
        sides = [str(rng.choice(sides))]
    return phrase(pick_noun(region, rng, plain=0.15), rng, adjectives, sides)


def _traits(region: Region, rng: np.random.Generator) -> list[str]:
    """Size and colour words that hold."""
    traits = []
    if region.area > 0.35 and rng.random() < 0.2:
        traits.append(str(rng.choice(LARGE)))
    if region.area < 0.08 and rng.random() < 0.2:
        traits.append(str(rng.choice(SMALL)))
    if region.colour and not (region.nouns and region.nouns.human) and rng.random() < 0.3:
        traits.append(region.colour)
    return traits


def apart(region: Region, other: Region, rng: np.random.Generator) -> str | None:
    """An expression that tells `region` from `other`, or None if nothing does."""
    own, others = region.nouns, other.nouns
    named = own is not None and others is not None and not set(own.names) & set(others.names)
    sides = sides_apart(region, other)
    sizes: tuple[str, ...] = ()
    if max(region.area, other.area) > 2 * min(region.area, other.area):
        sizes = LARGER + LARGE if region.area > other.area else SMALLER + SMALL
    coloured = bool(region.colour and other.colour and region.colour != other.colour)
    ways = (
        ["name"] * (6 * named)
        + ["side"] * (3 * bool(sides))
        + ["size"] * (2 * bool(sizes))
        + ["colour"] * coloured
    )
    if not ways:
        return None
    way = str(rng.choice(ways))
    adjectives = []
    if way == "size":
        adjectives.append(str(rng.choice(sizes)))
    if way == "colour" and region.colour:
        adjectives.append(region.colour)
    chosen = [str(rng.choice(sides))] if sides and (way == "side" or rng.random() < 0.2) else []
    if way != "name" or own is None or others is None:
        return phrase(pick_noun(region, rng, plain=0.5), rng, adjectives, chosen)
    if rng.random() < 0.4 and not own.related(others):
        return phrase(pick_noun(region, rng, plain=0.0), rng, adjectives, chosen)
    return phrase(str(rng.choice(own.names)), rng, adjectives, chosen)


def absent(
    present: Sequence[Nouns | None], all_nouns: Sequence[Nouns], rng: np.random.Generator
) -> str | None:
    """An expression for something that is not there; None if no such noun was found."""
    known = [nouns for nouns in present if nouns]
    if len(known) < len(present) or rng.random() < 0.1:
        return str(rng.choice(NOTHING))
    for _ in range(20):
        other = all_nouns[int(rng.integers(len(all_nouns)))]
        if not any(other.related(nouns) for nouns in known):
            return phrase(str(rng.choice(other.names)), rng)
    return None
