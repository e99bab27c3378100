"""Cues: what can be measured of an object in a picture, and which statements the measurements bear out.

The limits of `saliency_r1.cue_limits` decide what may be written of a mask (`Cues.clear`) and what holds for
one (`Cues.holds`); only the `Level` differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from saliency_r1.cue_limits import LEADING, LIMITS, MOSTLY, PLACES, SIDES, Level
from saliency_r1.errors import SaliencyError
from saliency_r1.language.colours import name_shares, to_lab
from saliency_r1.language.statements import PHRASES, Kind

_SIDE = 256
_COLOUR_SIDE = 96
_RING = 0.07
_PART_SHARES = (0.02, 0.05, 0.1)
_LEAST_PIXELS = 12


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
        if (kind, value) == (Kind.SIZE, "nothing"):
            return self.empty
        limits = LIMITS[kind, value]
        if self.empty:
            return False
        by = level.value
        return all(
            quantity is not None
            and limit.low + by * limit.margin <= quantity <= limit.high - by * limit.margin
            for limit in limits
            for quantity in (self.quantity(limit.quantity, level),)
        )

    def quantity(self, name: str, level: Level = Level.PLAIN) -> float | None:
        """Return a quantity of `Limit`, None if it cannot be told; colours and areas depend on the level."""
        side, _, what = name.partition(" ")
        if name in ("x", "y", "lightness", "colourfulness", "contrast", "sharpness"):
            number: float | None = getattr(self, name)
            return number
        if name == "log area":
            return math.log2(self.area)
        if what == "areas":
            return self._areas(side, level)
        if what == "gap":
            return self.gaps[side]
        if what in ("lightness", "colourfulness"):
            return self.sides[side][what == "colourfulness"] if side in self.sides else None
        return self.background_colours[level][what] if side == "background" else self.colours[level][name]

    def _areas(self, which: str, level: Level) -> float:
        """1 if the object has two areas, or several."""
        counts = [sum(part >= share for part in self.parts) for share in _PART_SHARES]
        fits = [count == 2 if which == "two" else count >= 3 for count in counts]
        return float(all(fits) if level is Level.CLEAR else any(fits) if level is Level.TOLERANT else fits[1])

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


def _leads(value: str, shares: Mapping[Level, Mapping[str, float]]) -> bool:
    own = value.removeprefix("background ")
    plain = shares[Level.PLAIN]
    others = (share for name, share in plain.items() if name != own)
    return plain[own] >= LEADING and all(share <= plain[own] / 2 for share in others)


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
        if outside.size and outside.mean() >= MOSTLY:
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
