"""The limits of the statements about an object: what may be written of it, and what holds for it.

One table serves the texts to learn from, the checks of a reasoning, and the policy's own measurements of what
is salient. Limits and margins:

| cue | statement | plain limit | margin |
|---|---|---|---|
| size, share of the picture | tiny, small | <= .04, <= .15 | factor 1.15 |
| | medium, large, most | .15 to .33, >= .33, >= .5 | factor 1.15 |
| place, mean of centroid and box centre | left, right, top, bottom | more than .1 off the middle | .035 |
| | centre | within .1 of the middle both ways | .035 |
| edges, gap between box and edge | reaches one; clear of all | <= .015; >= .015 | .009; .02 |
| areas, parts of 5 % of the object or more | two; several | 2; 3 or more | at 2, 5 and 10 % |
| colour, share of pixels that the name fits | one of eleven names | >= .4 | .05, and the name's own |
| contrast with a ring around, CIELAB | lighter, darker; more, less colourful | 8 in L; 8 in C | 5 |
| | strong; little | difference >= 25; <= 15 | 7; 4 |
| sharpness against the background | sharper | twice the Laplacian energy | factor 1.6 |
| background in a third less the object | lighter, darker; more colourful | 12 in L; 10 in C | 6 |

A colour name is a region of CIELAB under D65: a union of boxes in lightness L (0 to 100), chroma C and hue h
(degrees). The names are those of Berlin and Kay, "Basic Color Terms" (1969). All limits are ours, set by eye
on photos of DUTS-TR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

COLOURS = ("black", "grey", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
PLACES = (
    "left",
    "right",
    "top",
    "bottom",
    "centre",
    "top left",
    "top right",
    "bottom left",
    "bottom right",
)
SIDES = ("left", "right", "top", "bottom")
LEADING = 0.6
"""A colour is stated if it fits so large a share of the pixels, and no other half as many."""
MOSTLY = 0.5
"""Share of a third of the picture that must be background to be spoken of."""


class Level(Enum):
    """The strictness of a check of a statement, in margins of the cue inside its plain limits.

    `CLEAR` is for writing: a cue is stated only 1.6 margins inside its limits. `PLAIN` is the definition
    itself. `TOLERANT` is for checking: half a margin outside still holds, since a mask drawn a little
    differently, or a viewer with other habits, moves every measurement a little. A statement that was clear
    for one mask cannot fail for another by noise of less than two margins.
    """

    CLEAR = 1.6
    PLAIN = 0.0
    TOLERANT = -0.5


class Limit(NamedTuple):
    """A quantity must lie in [low, high], by a number of margins.

    Attributes:
        quantity: its name; `language.cues` and `nano.evidence` measure it.
        low, high: plain limits, in its unit.
        margin: one margin, in its unit.
    """

    quantity: str
    low: float = -math.inf
    high: float = math.inf
    margin: float = 0.0


class Box(NamedTuple):
    """A box of CIELAB; the hue is counted up from the first angle, past 360 if need be, None for any hue."""

    lightness: tuple[float, float]
    chroma: tuple[float, float]
    hue: tuple[float, float] | None = None


_INF = math.inf
COLOUR_BOXES: Mapping[str, tuple[Box, ...]] = MappingProxyType(
    {
        "black": (Box((-_INF, 24), (-_INF, 13)), Box((-_INF, 13), (-_INF, 25))),
        "grey": (Box((22, 68), (-_INF, 10)),),
        "white": (Box((72, _INF), (-_INF, 12)),),
        "red": (Box((14, 62), (34, _INF), (345, 402)), Box((14, 54), (40, _INF), (345, 409))),
        "orange": (Box((44, 84), (48, _INF), (40, 78)),),
        "yellow": (
            Box((62, _INF), (36, _INF), (75, 100)),
            Box((48, _INF), (42, _INF), (78, 100)),
            Box((80, _INF), (36, _INF), (75, 108)),
        ),
        "green": (Box((14, _INF), (12, _INF), (100, 195)),),
        "blue": (Box((10, _INF), (12, _INF), (197, 309)),),
        "purple": (Box((10, 78), (14, _INF), (307, 342)),),
        "pink": (Box((58, _INF), (16, _INF), (335, 400)), Box((45, _INF), (45, _INF), (335, 365))),
        "brown": (Box((12, 50), (12, 46), (36, 88)), Box((12, 62), (12, 38), (40, 86))),
    }
)
LIGHTNESS_MARGIN, CHROMA_MARGIN, HUE_MARGIN = 3.0, 2.5, 4.0
"""Margins of the boxes, in the units of CIELAB and in degrees."""


def _limits() -> dict[tuple[str, str], tuple[Limit, ...]]:
    factor = math.log2(1.15)
    near, far, margin = 0.4, 0.6, 0.035
    limits: dict[tuple[str, str], tuple[Limit, ...]] = {
        ("size", "tiny"): (Limit("log area", high=math.log2(0.04), margin=factor),),
        ("size", "small"): (Limit("log area", high=math.log2(0.15), margin=factor),),
        ("size", "medium"): (Limit("log area", math.log2(0.15), math.log2(0.33), factor),),
        ("size", "large"): (Limit("log area", low=math.log2(0.33), margin=factor),),
        ("size", "most"): (Limit("log area", low=math.log2(0.5), margin=factor),),
        ("place", "left"): (Limit("x", high=near, margin=margin),),
        ("place", "right"): (Limit("x", low=far, margin=margin),),
        ("place", "top"): (Limit("y", high=near, margin=margin),),
        ("place", "bottom"): (Limit("y", low=far, margin=margin),),
        ("place", "centre"): (Limit("x", near, far, margin), Limit("y", near, far, margin)),
    }
    for place in PLACES:
        row, _, column = place.partition(" ")
        if column:
            limits["place", place] = limits["place", row] + limits["place", column]
    for side in SIDES:
        limits["place", f"{side} edge"] = (Limit(f"{side} gap", high=0.015, margin=0.009),)
    limits["place", "no edge"] = tuple(Limit(f"{side} gap", low=0.015, margin=0.02) for side in SIDES)
    limits["place", "two areas"] = (Limit("two areas", low=1),)
    limits["place", "several areas"] = (Limit("several areas", low=1),)
    for colour in COLOURS:
        for value in (colour, f"background {colour}"):
            limits["colour", value] = (Limit(value, low=0.4, margin=0.05),)
    limits["contrast", "lighter"] = (Limit("lightness", low=8, margin=5),)
    limits["contrast", "darker"] = (Limit("lightness", high=-8, margin=5),)
    limits["contrast", "more colourful"] = (Limit("colourfulness", low=8, margin=5),)
    limits["contrast", "less colourful"] = (Limit("colourfulness", high=-8, margin=5),)
    limits["contrast", "strong"] = (Limit("contrast", low=25, margin=7),)
    limits["contrast", "little"] = (Limit("contrast", high=15, margin=4),)
    limits["contrast", "sharper"] = (Limit("sharpness", low=1, margin=math.log2(1.6)),)
    for side in SIDES:
        limits["rest", f"{side} lighter"] = (Limit(f"{side} lightness", low=12, margin=6),)
        limits["rest", f"{side} darker"] = (Limit(f"{side} lightness", high=-12, margin=6),)
        limits["rest", f"{side} more colourful"] = (Limit(f"{side} colourfulness", low=10, margin=6),)
    return limits


#: The limits of each statement but "nothing stands out", by kind and value as in `language.statements`. All
#: of them must be kept.
LIMITS: Mapping[tuple[str, str], tuple[Limit, ...]] = MappingProxyType(_limits())

#: The statements that the embedded policy measures before it writes, in the order of its numbers. Its map is
#: too coarse for the others.
TOLD: tuple[tuple[str, str], ...] = (
    *(
        (kind, value)
        for kind, value in LIMITS
        if kind != "colour" and value not in ("two areas", "several areas", "sharper")
    ),
    *(("colour", name) for name in COLOURS),
    *(("colour", f"background {name}") for name in COLOURS),
)
