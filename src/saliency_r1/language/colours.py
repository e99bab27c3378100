"""The eleven basic colour names of English as regions of CIELAB, each with a margin.

The names are those of Berlin and Kay, "Basic Color Terms" (1969); the regions are ours, set by eye on photos.
A region is a union of boxes in lightness L (0 to 100), chroma C and hue h (degrees), CIELAB under D65. Not
every colour has a name: beige, skin and olive lie between two.
"""

from __future__ import annotations

import numpy as np

from saliency_r1.cue_limits import (
    CHROMA_MARGIN,
    COLOUR_BOXES,
    COLOURS,
    HUE_MARGIN,
    LIGHTNESS_MARGIN,
    Box,
    Level,
)

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
    for name, boxes in COLOUR_BOXES.items():
        fits = np.zeros(len(lab), bool)
        for box in boxes:
            fits |= _inside(lightness, chroma, hue, box, level.value)
        shares[name] = float(fits.mean())
    return shares


def _inside(
    lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray, box: Box, margins: float
) -> np.ndarray:
    by = LIGHTNESS_MARGIN * margins
    fits = (lightness >= box.lightness[0] + by) & (lightness <= box.lightness[1] - by)
    by = CHROMA_MARGIN * margins
    fits &= (chroma >= box.chroma[0] + by) & (chroma <= box.chroma[1] - by)
    if box.hue is not None:
        by = HUE_MARGIN * margins
        fits &= (hue - box.hue[0] - by) % 360 <= box.hue[1] - box.hue[0] - 2 * by
    return fits
