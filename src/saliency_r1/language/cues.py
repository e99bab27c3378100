"""Cues: what can be measured of an object in a picture, and which statements the measurements bear out.

The same table of limits, `_RULES`, decides what may be written of a mask (`Cues.clear`) and what holds for
one (`Cues.holds`); only the `Level` differs. Limits and margins:

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

All are ours, set by eye on photos of DUTS-TR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from saliency_r1.errors import SaliencyError
from saliency_r1.language.colours import Level, name_shares, to_lab
from saliency_r1.language.statements import COLOURS, PHRASES, PLACES, SIDES, Kind

_SIDE = 256
_COLOUR_SIDE = 96
_RING = 0.07
_PART_SHARES = (0.02, 0.05, 0.1)
_LEAST_PIXELS = 12
_MOSTLY = 0.5
"""Share of a third of the picture that must be background to be spoken of."""


@dataclass(frozen=True)
class Cues:
    """The measurements of one object. Lengths are shares of the picture's width or height, 0 to 1.

    Attributes:
        area: share of the picture; 0 for an empty mask, and then every other number is 0 or None.
        x, y: place, the mean of the centroid and the centre of the box.
        gaps: between the box and each of the sides left, right, top, bottom.
        contact: share of each side that the object lies on.
        parts: sizes of the connected components as shares of the object, the largest first.
        colours: for each level and colour name, the share of the object's pixels that it fits.
        background_colours: the same for everything but the object.
        colour: mean CIELAB (L, a, b) of the object.
        surroundings: mean CIELAB of a ring around the object; None if nothing is around it.
        lightness, colourfulness: object minus surroundings, in L and in chroma; None as above.
        contrast: CIE76 difference of the means, and of the spread in L, object to surroundings; None as
            above.
        sides: for each side of the picture, lightness and chroma of the background in that third less the
            object's; without a side that holds little background.
        sharpness: log2 of the Laplacian energy inside the object over that of the background; None if either
            is too small to tell.
        witness: the cues of another mask of the object: what it does not bear out is not `clear`. Or None.
    """

    area: float
    x: float = 0.0
    y: float = 0.0
    gaps: Mapping[str, float] = field(default_factory=dict)
    contact: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[float, ...] = ()
    colours: Mapping[Level, Mapping[str, float]] = field(default_factory=dict)
    background_colours: Mapping[Level, Mapping[str, float]] = field(default_factory=dict)
    colour: tuple[float, float, float] | None = None
    surroundings: tuple[float, float, float] | None = None
    lightness: float | None = None
    colourfulness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    sides: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    witness: Cues | None = None

    @property
    def empty(self) -> bool:
        """Whether the mask was empty."""
        return self.area <= 0

    def holds(self, kind: Kind, value: str, level: Level = Level.PLAIN) -> bool:
        """Whether a statement holds. Nothing but "nothing stands out" holds for an empty mask.

        Raises:
            KeyError: if the vocabulary has no such statement.
        """
        rules = _RULES[kind, value]
        if self.empty:
            return (kind, value) == (Kind.SIZE, "nothing")
        return all(rule.holds(self, level) for rule in rules)

    def clear(self, kind: Kind) -> tuple[str, ...]:
        """The statements of a kind that may be made, the most telling first.

        They are clear by a margin, and not misleading. Beyond `holds` at `Level.CLEAR`: no place for an
        object in several parts, as nothing need be where their middle is; an edge only if a tenth of it is
        reached; a colour only if it fits 60 % of the pixels and no other half as many.
        """
        values = [value for value in PHRASES[kind] if self.holds(kind, value, Level.CLEAR)]
        if self.empty:
            return tuple(values)
        if self.witness is not None:
            values = [value for value in values if self.witness.holds(kind, value)]
        if kind is Kind.SIZE:
            # "tiny" is small too, and "most" large: one word says it.
            return tuple(value for value in ("tiny", "most", "small", "large", "medium") if value in values)[
                :1
            ]
        if kind is Kind.PLACE:
            whole = bool(self.parts) and self.parts[0] >= 0.75
            places = [place for place in reversed(PLACES) if place in values and whole][:1]
            edges = [side for side in SIDES if f"{side} edge" in values and self.contact[side] >= 0.1]
            edges.sort(key=lambda side: -self.contact[side])
            rest = [value for value in values if value in ("no edge", "two areas", "several areas")]
            return (*places, *(f"{side} edge" for side in edges), *rest)
        if kind is Kind.COLOUR:
            return tuple(
                value
                for value in values
                if _leads(value, self.background_colours if value.startswith("background") else self.colours)
            )
        return tuple(values)


_LEADING = 0.6


def _leads(value: str, shares: Mapping[Level, Mapping[str, float]]) -> bool:
    own = value.removeprefix("background ")
    plain = shares[Level.PLAIN]
    others = (share for name, share in plain.items() if name != own)
    return plain[own] >= _LEADING and all(share <= plain[own] / 2 for share in others)


class _Rule(NamedTuple):
    """A quantity must lie in [low, high], by a number of margins."""

    quantity: Callable[[Cues, Level], float | None]
    low: float = -math.inf
    high: float = math.inf
    margin: float = 0.0

    def holds(self, cues: Cues, level: Level) -> bool:
        quantity = self.quantity(cues, level)
        by = self.margin * level.value
        return quantity is not None and self.low + by <= quantity <= self.high - by


def _share_of(colour: str) -> Callable[[Cues, Level], float]:
    if colour.startswith("background "):
        return lambda cues, level: cues.background_colours[level][colour.removeprefix("background ")]
    return lambda cues, level: cues.colours[level][colour]


def _gap(side: str) -> Callable[[Cues, Level], float]:
    return lambda cues, level: cues.gaps[side]


def _areas(least: int, most: float) -> Callable[[Cues, Level], float]:
    def quantity(cues: Cues, level: Level) -> float:
        counts = [sum(part >= share for part in cues.parts) for share in _PART_SHARES]
        fits = [least <= count <= most for count in counts]
        return float(all(fits) if level is Level.CLEAR else any(fits) if level is Level.TOLERANT else fits[1])

    return quantity


def _side(side: str, which: int) -> Callable[[Cues, Level], float | None]:
    return lambda cues, level: cues.sides[side][which] if side in cues.sides else None


def _rules() -> dict[tuple[Kind, str], tuple[_Rule, ...]]:
    def of(name: str) -> Callable[[Cues, Level], float | None]:
        return lambda cues, level: getattr(cues, name)

    def area(cues: Cues, level: Level) -> float:
        return math.log2(cues.area)

    factor = math.log2(1.15)
    limits = {
        "tiny": (0.0, 0.04),
        "small": (0.0, 0.15),
        "medium": (0.15, 0.33),
        "large": (0.33, 1.0),
        "most": (0.5, 1.0),
    }
    rules: dict[tuple[Kind, str], tuple[_Rule, ...]] = {
        (Kind.SIZE, "nothing"): (_Rule(of("area"), high=0.0),)
    }
    for size, (low, high) in limits.items():
        rules[Kind.SIZE, size] = (
            _Rule(
                area,
                math.log2(low) if low > 0 else -math.inf,
                math.log2(high) if high < 1 else math.inf,
                factor,
            ),
        )
    near, far, margin = 0.4, 0.6, 0.035
    rules[Kind.PLACE, "left"] = (_Rule(of("x"), high=near, margin=margin),)
    rules[Kind.PLACE, "right"] = (_Rule(of("x"), low=far, margin=margin),)
    rules[Kind.PLACE, "top"] = (_Rule(of("y"), high=near, margin=margin),)
    rules[Kind.PLACE, "bottom"] = (_Rule(of("y"), low=far, margin=margin),)
    rules[Kind.PLACE, "centre"] = (_Rule(of("x"), near, far, margin), _Rule(of("y"), near, far, margin))
    for place in PLACES:
        if " " in place:
            row, column = place.split()
            rules[Kind.PLACE, place] = rules[Kind.PLACE, row] + rules[Kind.PLACE, column]
    for side in SIDES:
        rules[Kind.PLACE, f"{side} edge"] = (_Rule(_gap(side), high=0.015, margin=0.009),)
    rules[Kind.PLACE, "no edge"] = tuple(_Rule(_gap(side), low=0.015, margin=0.02) for side in SIDES)
    rules[Kind.PLACE, "two areas"] = (_Rule(_areas(2, 2), low=1),)
    rules[Kind.PLACE, "several areas"] = (_Rule(_areas(3, math.inf), low=1),)
    for colour in COLOURS:
        for value in (colour, f"background {colour}"):
            rules[Kind.COLOUR, value] = (_Rule(_share_of(value), low=0.4, margin=0.05),)
    rules[Kind.CONTRAST, "lighter"] = (_Rule(of("lightness"), low=8, margin=5),)
    rules[Kind.CONTRAST, "darker"] = (_Rule(of("lightness"), high=-8, margin=5),)
    rules[Kind.CONTRAST, "more colourful"] = (_Rule(of("colourfulness"), low=8, margin=5),)
    rules[Kind.CONTRAST, "less colourful"] = (_Rule(of("colourfulness"), high=-8, margin=5),)
    rules[Kind.CONTRAST, "strong"] = (_Rule(of("contrast"), low=25, margin=7),)
    rules[Kind.CONTRAST, "little"] = (_Rule(of("contrast"), high=15, margin=4),)
    for side in SIDES:
        rules[Kind.REST, f"{side} lighter"] = (_Rule(_side(side, 0), low=12, margin=6),)
        rules[Kind.REST, f"{side} darker"] = (_Rule(_side(side, 0), high=-12, margin=6),)
        rules[Kind.REST, f"{side} more colourful"] = (_Rule(_side(side, 1), low=10, margin=6),)
    rules[Kind.CONTRAST, "sharper"] = (_Rule(of("sharpness"), low=1, margin=math.log2(1.6)),)
    return rules


_RULES = _rules()


def measure(image: np.ndarray | Image.Image, mask: np.ndarray) -> Cues:
    """Measure the cues of an object.

    Geometry is measured on the mask as given, sharpness at 256 pixels on the longest side, colour at 96.

    Args:
        image: RGB, uint8 (H, W, 3) or a PIL image.
        mask: (H, W), bool, or a number type that counts as the object from 0.5 (float) or from 1 (integer). A
            size other than the image's is allowed if the picture is the same.

    Raises:
        SaliencyError: if the image or the mask has another shape, type or no pixels.
    """
    picture = _picture(image)
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise SaliencyError(f"expected a mask of shape (H, W) with pixels, got shape {mask.shape}")
    if mask.dtype != bool:
        mask = mask >= (0.5 if np.issubdtype(mask.dtype, np.floating) else 1)
    if not mask.any():
        return Cues(area=0.0)
    geometry = _geometry(mask)
    lab, inside = _lab(picture, _COLOUR_SIDE), _shrink(mask, picture.size, _COLOUR_SIDE)
    around = _ring(inside)
    colours = {level: name_shares(lab[inside], level) for level in Level}
    background = {level: name_shares(lab[~inside], level) for level in Level}
    own = lab[inside].mean(0)
    ring = lightness = colourfulness = contrast = None
    if around.any():
        ring = lab[around].mean(0)
        spread = lab[inside][:, 0].std() - lab[around][:, 0].std()
        chroma = [np.hypot(lab[where][:, 1], lab[where][:, 2]).mean() for where in (inside, around)]
        lightness, colourfulness = float(own[0] - ring[0]), float(chroma[0] - chroma[1])
        contrast = float(math.hypot(float(np.linalg.norm(own - ring)), float(spread)))
    return Cues(
        area=float(mask.mean()),
        x=geometry.x,
        y=geometry.y,
        gaps=geometry.gaps,
        contact=geometry.contact,
        parts=_parts(mask),
        colours=colours,
        background_colours=background,
        colour=(float(own[0]), float(own[1]), float(own[2])),
        surroundings=None if ring is None else (float(ring[0]), float(ring[1]), float(ring[2])),
        sharpness=_sharpness(picture, mask),
        sides=_sides(lab, inside),
        lightness=lightness,
        colourfulness=colourfulness,
        contrast=contrast,
    )


def _sides(lab: np.ndarray, inside: np.ndarray) -> dict[str, tuple[float, float]]:
    """Lightness and chroma of the background in each third, less those of the object."""
    height, width = inside.shape
    thirds: dict[str, tuple[slice, slice]] = {
        "left": (slice(None), slice(width // 3)),
        "right": (slice(None), slice(width - width // 3, None)),
        "top": (slice(height // 3), slice(None)),
        "bottom": (slice(height - height // 3, None), slice(None)),
    }
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    found = {}
    for side, third in thirds.items():
        outside = ~inside[third]
        if outside.size and outside.mean() >= _MOSTLY:
            lightness = lab[third][..., 0][outside].mean() - lab[..., 0][inside].mean()
            colourfulness = chroma[third][outside].mean() - chroma[inside].mean()
            found[side] = float(lightness), float(colourfulness)
    return found


def _picture(image: np.ndarray | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise SaliencyError(
            f"expected a uint8 image of shape (H, W, 3), got {image.dtype} of shape {image.shape}"
        )
    return Image.fromarray(image)


class _Geometry(NamedTuple):
    x: float
    y: float
    gaps: Mapping[str, float]
    contact: Mapping[str, float]


def _geometry(mask: np.ndarray) -> _Geometry:
    height, width = mask.shape
    columns, rows = mask.sum(0), mask.sum(1)
    spans = []
    for counts in (columns, rows):
        filled = np.flatnonzero(counts)
        low, high = filled[0] / len(counts), (filled[-1] + 1) / len(counts)
        centroid = (counts @ (np.arange(len(counts)) + 0.5)) / counts.sum() / len(counts)
        spans.append((float(low), float(high), float((centroid + (low + high) / 2) / 2)))
    (left, right, x), (top, bottom, y) = spans
    gaps = {"left": left, "right": 1 - right, "top": top, "bottom": 1 - bottom}
    contact = {
        "left": columns[0] / height,
        "right": columns[-1] / height,
        "top": rows[0] / width,
        "bottom": rows[-1] / width,
    }
    return _Geometry(x, y, gaps, {side: float(share) for side, share in contact.items()})


def _working_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(mask: np.ndarray, size: tuple[int, int], longest: int) -> np.ndarray:
    """The mask at working size; one that would vanish keeps its fullest pixel."""
    share = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    cells = np.asarray(share.resize(_working_size(size, longest), Image.Resampling.BOX))
    small = cells >= 128
    if not small.any():
        small = cells == cells.max()
    return small


def _lab(picture: Image.Image, longest: int) -> np.ndarray:
    """CIELAB, float (H, W, 3), at working size."""
    return to_lab(np.asarray(picture.resize(_working_size(picture.size, longest), Image.Resampling.BOX)))


def _ring(inside: np.ndarray) -> np.ndarray:
    """The pixels around an object without the first, which mixes both; else all of the background."""
    from scipy.ndimage import distance_transform_edt

    if inside.all():
        return np.zeros_like(inside)
    distance = distance_transform_edt(~inside)
    ring = (distance > 1.5) & (distance <= 1.5 + max(2.0, _RING * max(inside.shape)))
    return ring if ring.sum() >= _LEAST_PIXELS else ~inside


def _parts(mask: np.ndarray) -> tuple[float, ...]:
    """Sizes of the connected components (8 neighbours), as shares, the largest first."""
    from scipy.ndimage import label

    small = _shrink(mask, (mask.shape[1], mask.shape[0]), _SIDE // 2)
    labels, count = label(small, np.ones((3, 3), int))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return tuple(float(size) for size in sorted(sizes / sizes.sum(), reverse=True))


def _sharpness(picture: Image.Image, mask: np.ndarray) -> float | None:
    from scipy.ndimage import binary_dilation, laplace

    size = _working_size(picture.size, _SIDE)
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX), np.float32)
    inside = _shrink(mask, picture.size, _SIDE)
    # The outline is sharp on both sides of it, so it tells nothing.
    outside = ~binary_dilation(inside, iterations=3)
    inside = ~binary_dilation(~inside, iterations=2)
    if min(inside.sum(), outside.sum()) < 4 * _LEAST_PIXELS:
        return None
    energy = laplace(grey) ** 2
    # Sensor noise of about one grey level keeps two flat areas from being told apart.
    return float(math.log2((energy[inside].mean() + 20.0) / (energy[outside].mean() + 20.0)))
