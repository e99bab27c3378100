"""The eleven basic colour names of English as regions of CIELAB, each with a margin.

The names are those of Berlin and Kay, "Basic Color Terms" (1969); the regions are ours, set by eye on photos.
A region is a union of boxes in lightness L (0 to 100), chroma C and hue h (degrees), CIELAB under D65. Not
every colour has a name: beige, skin and olive lie between two.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from saliency_r1.language.statements import COLOURS


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


_INF = np.inf
# Lightness low, high; chroma low, high; hue from, to (degrees, counted up and past 360), None for any hue.
_Box = tuple[float, float, float, float, float | None, float | None]
_BOXES: dict[str, tuple[_Box, ...]] = {
    "black": ((-_INF, 24, -_INF, 13, None, None), (-_INF, 13, -_INF, 25, None, None)),
    "grey": ((22, 68, -_INF, 10, None, None),),
    "white": ((72, _INF, -_INF, 12, None, None),),
    "red": ((14, 62, 34, _INF, 345, 402), (14, 54, 40, _INF, 345, 409)),
    "orange": ((44, 84, 48, _INF, 40, 78),),
    "yellow": ((62, _INF, 36, _INF, 75, 100), (48, _INF, 42, _INF, 78, 100), (80, _INF, 36, _INF, 75, 108)),
    "green": ((14, _INF, 12, _INF, 100, 195),),
    "blue": ((10, _INF, 12, _INF, 197, 309),),
    "purple": ((10, 78, 14, _INF, 307, 342),),
    "pink": ((58, _INF, 16, _INF, 335, 400), (45, _INF, 45, _INF, 335, 365)),
    "brown": ((12, 50, 12, 46, 36, 88), (12, 62, 12, 38, 40, 86)),
}
_LIGHTNESS_MARGIN, _CHROMA_MARGIN, _HUE_MARGIN = 3.0, 2.5, 4.0


_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def to_lab(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB to CIELAB under the daylight D65, as CIE 015 and IEC 61966-2-1 define them.

    Args:
        colours: uint8 (..., 3).

    Returns:
        float64 (..., 3): lightness in [0, 100], and the axes from green to red and from blue to yellow.
    """
    values = colours / 255.0
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    share = linear @ _XYZ.T / _WHITE
    bent = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def name_shares(lab: np.ndarray, level: Level) -> dict[str, float]:
    """The share of pixels that each colour name fits.

    Args:
        lab: float (N, 3), CIELAB.
        level: how far inside its region a pixel must lie. The regions of `PLAIN` touch or overlap a little,
            those of `CLEAR` leave gaps.

    Returns:
        A share of 0 to 1 for each of `COLOURS`; they need not add up to 1. All 0 for no pixels.
    """
    if len(lab) == 0:
        return dict.fromkeys(COLOURS, 0.0)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1]))
    shares = {}
    for name, boxes in _BOXES.items():
        fits = np.zeros(len(lab), bool)
        for box in boxes:
            fits |= _inside(lightness, chroma, hue, box, level.value)
        shares[name] = float(fits.mean())
    return shares


def _inside(
    lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray, box: _Box, margins: float
) -> np.ndarray:
    by = _LIGHTNESS_MARGIN * margins
    fits = (lightness >= box[0] + by) & (lightness <= box[1] - by)
    by = _CHROMA_MARGIN * margins
    fits &= (chroma >= box[2] + by) & (chroma <= box[3] - by)
    if box[4] is not None and box[5] is not None:
        by = _HUE_MARGIN * margins
        width = box[5] - box[4] - 2 * by
        fits &= (hue - box[4] - by) % 360 <= width
    return fits
