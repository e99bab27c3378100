"""Make referring expressions for pictures of several objects: each is true of exactly its objects.

Two objects of one name are told apart by place ("the left dog"), order ("the second dog from the left"), size
or colour, if the masks confirm it with a margin. A noun is used only if it is known for every object whether
it
fits: beside an object without a name, or with a wider name, nothing is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from saliency_r1.cue_limits import COLOURS
from saliency_r1.data.samples import Synset
from saliency_r1.language.expressions import GENERIC, NOTHING, UNKNOWN_NOUN, Nouns, Region, phrase
from saliency_r1.language.naming import OBJECT, NameBook, subject_of
from saliency_r1.scenes.scenes import Scene
from saliency_r1.wording import NUMBERS, ORDINALS

KINDS = ("name", "synonym", "hypernym", "colour", "place", "order", "size", "all", "negative")
EXTREMES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "bottommost"}
_MIDDLE = ("middle", "central")
_LARGEST, _SMALLEST = ("largest", "biggest"), ("smallest",)
_LARGER, _SMALLER = ("larger", "bigger", "large", "big"), ("smaller", "small")
_ANY = ("object", "thing", "item")
# Masks with these names show people too, who have no name of their own.
_WITH_PEOPLE = frozenset(
    {"vehicle", "conveyance", "musical instrument", "clothing", "equipment", "implement", "covering", "horse"}
    | {"furniture", "device", "toiletry", "artifact"}
)


@dataclass(frozen=True)
class Referred:
    """An expression and the objects of which it is true.

    Attributes:
        text: the expression.
        indices: indices of the scene's objects; empty for an absent one.
        kind: one of `KINDS`.
    """

    text: str
    indices: tuple[int, ...]
    kind: str


def extra_words() -> list[str]:
    """Return the words of these expressions that are not in `expressions.vocabulary`, sorted."""
    texts = [*ORDINALS, *NUMBERS, *EXTREMES.values(), *_MIDDLE, *_LARGEST, *_SMALLEST, *_LARGER, *_SMALLER]
    return sorted({*texts, *_ANY, "from", "all", "both", "people"})


def referring(scene: Scene, rng: np.random.Generator, names: NameBook) -> list[Referred]:
    """Make expressions for a scene: about two of each kind that it allows, no text twice.

    Args:
        scene: a scene whose objects are all that stands out.
        rng: draws objects and wordings.
        names: the names of the objects, and of what else is there.
    """
    regions = [Region(each.mask, nouns_for(each.synset, names), each.colour) for each in scene.objects]
    return refer(regions, rng, nouns_of(names))


def nouns_of(names: NameBook) -> list[Nouns]:
    """Return the nouns of all synsets of a book that has a name for them."""
    found = (nouns_for(synset, names) for synset in names.synsets)
    return [nouns for nouns in found if nouns]


def nouns_for(synset: Synset | None, names: NameBook) -> Nouns | None:
    """Return the nouns of a synset, None if it has no better name than "object"."""
    return Nouns.of(synset, names) if synset and names.name(synset) != OBJECT else None


def refer(
    regions: Sequence[Region], rng: np.random.Generator, known: Sequence[Nouns], closed: bool = True
) -> list[Referred]:
    """Make expressions for objects, see `referring`.

    Args:
        regions: the objects.
        rng: draws objects and wordings.
        known: nouns for absent objects.
        closed: whether only these objects stand out; if not, each expression names its object.
    """
    found: list[Referred] = []
    everything = tuple(range(len(regions)))
    for index, region in enumerate(regions):
        for noun, kind in _nouns(region):
            group = _group(noun, region.nouns, regions)
            if group is None:
                continue
            if len(group) == 1:
                found.append(Referred(phrase(noun, rng, *_traits(region, rng)), (index,), kind))
            else:
                found += _apart(index, group, regions, noun, rng)
                if index == group[0] and subject_of(noun) == noun:
                    found.append(Referred(_all_of(noun, len(group), rng), group, "all"))
        if closed and len(regions) > 1:
            noun = UNKNOWN_NOUN if rng.random() < 0.15 else str(rng.choice(_ANY))
            found += _apart(index, everything, regions, noun, rng)
    if closed:
        found.append(Referred(str(rng.choice(GENERIC)), everything, "all" if regions else "negative"))
        if not regions:
            found.append(Referred(str(rng.choice(NOTHING)), (), "negative"))
    found += _absent(regions, rng, known)
    order = rng.permutation(len(found))
    unique = {found[int(index)].text: found[int(index)] for index in order}
    return sorted(unique.values(), key=lambda each: (KINDS.index(each.kind), each.indices, each.text))


def pick_two(found: Sequence[Referred], rng: np.random.Generator) -> tuple[Referred, Referred]:
    """Draw two expressions, of different objects if possible: first a kind, then a text."""
    first = _pick(found, rng)
    return first, _pick([each for each in found if each.indices != first.indices] or found, rng)


def _pick(found: Sequence[Referred], rng: np.random.Generator) -> Referred:
    weights = {"order": 3.0, "name": 3.0, "place": 3.0, "negative": 0.8, "synonym": 0.7, "hypernym": 0.7}
    kinds = sorted({each.kind for each in found}, key=KINDS.index)
    chances = np.array([weights.get(kind, 1.0) for kind in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=chances / chances.sum()))]
    rows = [each for each in found if each.kind == kind]
    return rows[int(rng.integers(len(rows)))]


def _nouns(region: Region) -> list[tuple[str, str]]:
    """Yield words for an object with their kind, the plain name first."""
    if region.nouns is None:
        return []
    nouns = region.nouns
    found = dict.fromkeys(nouns.names[:2], "name")
    for kind, words in (("synonym", nouns.synonyms), ("hypernym", nouns.hypernyms)):
        for word in words[:2]:
            found.setdefault(word, kind)
    return list(found.items())


def _group(noun: str, own: Nouns | None, regions: Sequence[Region]) -> tuple[int, ...] | None:
    """Return the objects that a noun fits; None if that is unknown for one of them."""
    if own is None:
        return None
    fits = []
    for index, region in enumerate(regions):
        if region.nouns is None:
            return None
        if noun in _called(region.nouns):
            fits.append(index)
        elif set(region.nouns.names) & own.kinds and not set(own.names) & set(region.nouns.names):
            return None  # it has a wider name, so it may be this too
        elif subject_of(noun) == "person" and region.nouns.kinds & _WITH_PEOPLE:
            return None
    return tuple(fits)


def _called(nouns: Nouns) -> frozenset[str]:
    return nouns.kinds | {*nouns.names, *nouns.synonyms, *nouns.hypernyms}


def _traits(region: Region, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return adjectives and sides that are true of an object, often none."""
    adjectives = []
    if region.colour and not (region.nouns and region.nouns.human) and rng.random() < 0.3:
        adjectives.append(region.colour)
    sides = region.sides(0.13) if rng.random() < 0.25 else []
    return adjectives, sides


def _apart(
    index: int, group: tuple[int, ...], regions: Sequence[Region], noun: str, rng: np.random.Generator
) -> list[Referred]:
    """Distinguish one object from the others of a group by place, order, size and colour."""
    only, count = (index,), len(group)
    found: list[Referred] = []
    own = regions[index]
    rest = [regions[other] for other in group if other != index]
    if sides := _own_sides(own, rest):
        found.append(Referred(phrase(noun, rng, (), sides), only, "place"))
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        places = [regions[other].centre[axis] for other in group]
        order = [group[each] for each in np.argsort(places, kind="stable")]
        gaps = np.diff(np.sort(places))
        rank = order.index(index)
        for side, first, gap in ((low, 0, gaps[0]), (high, count - 1, gaps[-1])):
            if rank == first and gap > 0.08 and count > 2:
                found.append(Referred(f"the {EXTREMES[side]} {noun}", only, "place"))
        if axis == 0 and count == 3 and rank == 1 and gaps.min() > 0.1:
            found.append(Referred(f"the {rng.choice(_MIDDLE)} {noun}", only, "place"))
        if gaps.min() > 0.05 and (axis == 0 or count < 4):
            side, number = (low, rank) if rng.random() < 0.6 else (high, count - 1 - rank)
            found.append(Referred(f"the {ORDINALS[number]} {noun} from the {side}", only, "order"))
    areas = [each.area for each in rest]
    for words, pair_words, much in (
        (_LARGEST, _LARGER, own.area / max(*areas, 1e-6)),
        (_SMALLEST, _SMALLER, min(areas) / max(own.area, 1e-6)),
    ):
        if much > 1.6:
            word = str(rng.choice(words if count > 2 or rng.random() < 0.3 else pair_words))
            found.append(Referred(f"the {word} {noun}", only, "size"))
    human = any(each.nouns and each.nouns.human for each in (own, *rest))
    if own.colour and not human and all(each.colour not in (None, own.colour) for each in rest):
        found.append(Referred(f"the {own.colour} {noun}", only, "colour"))
    return found


def _own_sides(own: Region, rest: Sequence[Region]) -> list[str]:
    """Return a side or corner where an object is alone: it is there, and all others are far from it."""
    away = [
        [side for side in own.sides(0.1) if side != "centre" and _further(own, other, side)] for other in rest
    ]
    single = [side for side in ("left", "right", "top", "bottom") if all(side in each for each in away)]
    if single:
        return single[:1]
    corner = [side for side in own.sides(0.1) if side != "centre"]
    if len(corner) == 2 and all(away):
        return corner
    return []


def _further(own: Region, other: Region, side: str) -> bool:
    """Whether the other object is on the half away from that side, or nearly, and apart from the first."""
    axis = 0 if side in ("left", "right") else 1
    toward = -1 if side in ("left", "top") else 1
    place, there = own.centre[axis], other.centre[axis]
    return toward * (place - there) > 0.15 and toward * (there - 0.5) < 0.05


def _all_of(noun: str, count: int, rng: np.random.Generator) -> str:
    plural = "people" if noun == "person" else f"{noun}s"
    if count == 2 and rng.random() < 0.4:
        return f"both {plural}"
    if rng.random() < 0.4:
        return f"the {NUMBERS[count - 1]} {plural}"
    return f"{rng.choice(('all', 'all the'))} {plural}"


def _absent(regions: Sequence[Region], rng: np.random.Generator, known: Sequence[Nouns]) -> list[Referred]:
    """Return an expression for something absent: another name, or a colour that no object of the name has."""
    found = []
    present = [region.nouns for region in regions]
    for _ in range(20 if known and None not in present else 0):
        other = known[int(rng.integers(len(known)))]
        if other.human or any(_alike(other, each) for each in present if each):
            continue
        found.append(Referred(phrase(other.names[0], rng), (), "negative"))
        if len(found) == 2:
            break
    for index in rng.permutation(len(regions)):
        region = regions[int(index)]
        if region.nouns is None or region.nouns.human:
            continue
        noun = region.nouns.names[0]
        group = _group(noun, region.nouns, regions)
        colours = {regions[each].colour for each in group} if group else {None}
        if None not in colours:
            others = [colour for colour in COLOURS if colour not in colours and not _near(colour, colours)]
            found.append(Referred(f"the {rng.choice(others)} {noun}", (), "negative"))
            break
    return found


def _alike(one: Nouns, other: Nouns) -> bool:
    """Whether one may have the name of the other."""
    return bool(
        {*one.names, *one.synonyms} & _called(other) or {*other.names, *other.synonyms} & _called(one)
    )


def _near(colour: str, colours: Iterable[str | None]) -> bool:
    """Whether some people would use one colour word for the other."""
    near = (
        {"red", "orange", "pink", "brown"},
        {"orange", "yellow", "brown"},
        {"blue", "purple"},
        {"pink", "purple"},
        {"black", "grey", "brown"},
        {"white", "grey"},
        {"yellow", "green"},
    )
    return any(colour in group and other in group for group in near for other in colours)
