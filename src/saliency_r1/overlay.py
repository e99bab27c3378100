"""Draw on photos: masks in colour, their numbers, a legend below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from math import ceil, erf, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from saliency_r1.morphology import depth

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color), told apart by the colour-blind too. The dark line
# around each shows it on a bright photo.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""The colours of the first, second, … instance; after the last they repeat."""

DARK, LIGHT = (16, 16, 16), (255, 255, 255)
_TINT, _INSTANCE_TINT = 0.1, 0.4
_SURROUNDINGS = 0.42
_TILE = 512
_THUMBNAIL = 192
_LEGEND_WIDTH, _LEGEND_LINES = 320, 2


def colour_of(index: int) -> tuple[int, int, int]:
    """Return the colour of instance `index`, from 0."""
    return PALETTE[index % len(PALETTE)]


def paint_masks(
    photo: Image.Image, masks: Sequence[np.ndarray], *, numbered: bool = False, dimmed: bool = True
) -> Image.Image:
    """Draw masks in colour, outlined and tinted, on dimmed surroundings.

    Each mask has its own colour. The outline is a bright line with a dark edge, which is visible on dark and
    on bright photos.

    Args:
        photo: RGB.
        masks: probabilities, float32 (H, W) in [0, 1], of the photo's size.
        numbered: whether to tint each mask strongly and to write its number, from 1, at its innermost place.
        dimmed: whether to dim the surroundings.

    Returns:
        RGB image of the photo's size.
    """
    line = max(1.5, max(photo.size) / 220)
    outlines = _outline_table(line, 0.5 * line), _outline_table(line, 0.5 * line + max(1.0, 0.5 * line))
    tinted = _tinted(_INSTANCE_TINT if numbered else _TINT)
    edges = [_Edge.of(mask, line) for mask in masks]
    result = Image.new("RGB", photo.size)
    for box in _tiles(photo.size):
        left, top, right, bottom = box
        tile = photo.crop(box)
        shown = tile.convert("RGB", _DIMMED) if dimmed else tile.copy()
        greys = [to_grey(mask[top:bottom, left:right]) for mask in masks]
        # Most tiles of a large photo are outside all masks, and nearly all are away from edges.
        held = [grey.getbbox() is not None for grey in greys]
        for grey in compress(greys, held):
            shown.paste(tile, mask=grey.point(_KEEP))
        for index, (grey, edge) in enumerate(zip(greys, edges, strict=True)):
            if held[index]:
                shown.paste(colour_of(index), mask=grey.point(tinted))
            inner = edge.crop(box)
            for colour, table in ((DARK, outlines[1]), (colour_of(index), outlines[0])):
                drawn = inner.point(table)
                if drawn.getbbox() is not None:
                    shown.paste(colour, mask=drawn)
        result.paste(shown, box)
    if numbered:
        draw = ImageDraw.Draw(result)
        radius = max(7.0, max(photo.size) / 38)
        for index, place in enumerate(innermost([_small(mask) for mask in masks])):
            if place is not None:
                centre = (place[0] * photo.width, place[1] * photo.height)
                draw_badge(draw, centre, radius, index)
    return result


def with_legend(picture: Image.Image, entries: Sequence[str]) -> Image.Image:
    """Add a line for each entry below the picture: the number in its colour, and the text.

    Args:
        picture: RGB.
        entries: texts, for the numbers from 1.

    Returns:
        RGB image, as wide as the picture but at least 320 pixels; the picture itself without entries.
    """
    if not entries:
        return picture
    width = max(picture.width, _LEGEND_WIDTH)
    size = max(13, round(width / 34))
    radius, gap = 0.68 * size, round(0.5 * size)
    left = round(2 * gap + 2 * radius)
    lettering = font(size)
    texts = [wrapped(entry, lettering, width - left - gap, _LEGEND_LINES) for entry in entries]
    step = round(1.3 * size)
    heights = [max(len(lines) * step, ceil(2 * radius)) + gap for lines in texts]
    sheet = Image.new("RGB", (width, picture.height + gap + sum(heights)), DARK)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    top = float(picture.height + gap)
    for index, (lines, height) in enumerate(zip(texts, heights, strict=True)):
        draw_badge(draw, (gap + radius, top + max(radius, step / 2)), radius, index)
        for number, line in enumerate(lines):
            middle = top + max(radius, step / 2) + number * step
            draw.text((left, middle), line, LIGHT, lettering, anchor="lm")
        top += height
    return sheet


def draw_badge(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, index: int, ring: bool = True
) -> None:
    """Draw a disc in the colour of instance `index` (from 0) with its number (from 1) in it."""
    colour = colour_of(index)
    rim = max(1, round(radius / 7)) if ring else 0
    draw.circle(centre, radius, fill=colour, outline=DARK, width=rim)
    number = str(index + 1)
    ink = DARK if _luminance(colour) > 0.2 else LIGHT
    draw.text(
        centre, number, ink, font(max(6, round(radius * (1.45 if len(number) < 2 else 1.1)))), anchor="mm"
    )


def innermost(masks: Sequence[np.ndarray]) -> list[tuple[float, float] | None]:
    """Return the place (x, y) of each mask that is farthest from its edge, as shares of width and height.

    Pixels that another mask covers too are avoided if possible. None for an empty mask.

    Args:
        masks: bool (H, W) each.
    """
    places: list[tuple[float, float] | None] = []
    cover = np.sum(masks, axis=0) if masks else 0
    for mask in masks:
        own = mask & (cover == 1)
        own = own if own.any() else mask
        if not own.any():
            places.append(None)
            continue
        below = depth(own)
        deepest = np.argwhere(below > below.max() - 1)
        # A long shape has many such places: take the one in their middle.
        y, x = deepest[np.square(deepest - deepest.mean(axis=0)).sum(axis=1).argmin()]
        places.append(((float(x) + 0.5) / mask.shape[1], (float(y) + 0.5) / mask.shape[0]))
    return places


def to_grey(mask: np.ndarray) -> Image.Image:
    """Convert probabilities, float32 (H, W), to 8-bit grey: 128 and above where they are at least 0.5."""
    grey = np.empty(mask.shape, np.uint8)
    for top in range(0, len(mask), _TILE):  # in strips, to save memory
        bottom = top + _TILE
        np.rint(mask[top:bottom] * np.float32(255), out=grey[top:bottom], casting="unsafe")
    return Image.fromarray(grey)


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return PIL's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def wrapped(
    text: str, lettering: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float, lines: int
) -> list[str]:
    """Wrap text to that many lines and pixels at most; an ellipsis marks a cut."""
    done: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and lettering.getlength(longer) > width:
            done.append(line)
            line = word
        else:
            line = longer
    done.append(line)
    if len(done) > lines:
        done = done[:lines]
        while done[-1] and lettering.getlength(f"{done[-1]} …") > width:
            done[-1] = done[-1].rpartition(" ")[0]
        done[-1] += " …"
    return done


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes (left, top, right, bottom) that cover a picture, to limit the memory of a step."""
    width, height = size
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield left, top, min(left + _TILE, width), min(top + _TILE, height)


@dataclass(frozen=True)
class _Edge:
    """Blur the binary mask on a coarse grid; the values show the distance of each pixel from its edge."""

    blurred: Image.Image
    factor: int
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray, sigma: float) -> _Edge:
        factor = max(1, int(sigma / 3))
        binary = Image.fromarray((mask >= 0.5).astype(np.uint8) * np.uint8(255))
        size = binary.size
        small = binary.reduce(factor) if factor > 1 else binary
        return cls(small.filter(ImageFilter.GaussianBlur(sigma / factor)), factor, size)

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Return the blurred mask in a box of the picture, in the picture's pixels."""
        if self.factor == 1:
            return self.blurred.crop(box)
        margin = 2 * self.factor  # PIL interpolates only within the box
        width, height = self.size
        outer = (
            max(0, box[0] - margin),
            max(0, box[1] - margin),
            min(width, box[2] + margin),
            min(height, box[3] + margin),
        )
        part = self.blurred.resize(
            (outer[2] - outer[0], outer[3] - outer[1]),
            Image.Resampling.BILINEAR,
            box=(
                outer[0] / self.factor,
                outer[1] / self.factor,
                outer[2] / self.factor,
                outer[3] / self.factor,
            ),
        )
        left, top = box[0] - outer[0], box[1] - outer[1]
        return part.crop((left, top, left + box[2] - box[0], top + box[3] - box[1]))


def _small(mask: np.ndarray) -> np.ndarray:
    """Return every n-th row and column of the mask, bool: enough to find a place in it."""
    step = ceil(max(mask.shape) / _THUMBNAIL)
    return mask[step // 2 :: step, step // 2 :: step] >= 0.5


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.1), with 2.2 for the curve of sRGB."""
    red, green, blue = ((value / 255) ** 2.2 for value in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _dimming(brightness: float, grey: float) -> tuple[float, ...]:
    """Return PIL's matrix that darkens RGB and removes a share of the colour."""
    luma = (0.299, 0.587, 0.114)
    rows = []
    for channel in range(3):
        rows += [
            brightness * (grey * part + (1 - grey) * (channel == other)) for other, part in enumerate(luma)
        ]
        rows.append(0.0)
    return tuple(rows)


_DIMMED = _dimming(_SURROUNDINGS, 0.7)

# Tables from a mask's 8-bit probability to an alpha.
_BINARY = [255 * (value >= 128) for value in range(256)]
_KEEP = [round(255 * min(1.0, max(0.0, (value / 255 - 0.2) / 0.6))) for value in range(256)]


def _tinted(share: float) -> list[int]:
    return [round(share * value) for value in _KEEP]


def _outline_table(sigma: float, reach: float) -> list[int]:
    """Return alpha of a line along the mask's edge, from the binary mask blurred with `sigma`.

    Across a straight edge the blurred mask is the normal distribution function of the distance, so it gives
    the distance of a pixel from the edge. The line ends `reach` pixels from the edge, with a soft
    rim of one pixel.
    """
    near, far = (0.5 * (1 + erf(-max(0.0, reach + rim) / sigma / sqrt(2))) for rim in (-0.5, 0.5))
    depths = (min(value, 255 - value) / 255 for value in range(256))
    return [round(255 * min(1.0, max(0.0, (depth - far) / (near - far)))) for depth in depths]
