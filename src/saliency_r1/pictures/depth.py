"""Convert pixel values of any depth to 8 bits: one rule for photos, masks and saliency maps."""

from __future__ import annotations

import numpy as np

from saliency_r1.errors import ImageError

_BIT_DEPTHS = (8, 10, 12, 14, 16)
_ROWS = 256


def to_bytes(values: np.ndarray, name: str, *, stretch: bool) -> np.ndarray:
    """Scale pixel values to uint8.

    - uint8 is not changed; False and True become 0 and 255.
    - Integers are scaled from the smallest depth of 8, 10, 12, 14 and 16 bits that holds the largest value.
    - Floats count as 0 to 1 if all values are in that range, otherwise as 0 to 255.
    - Values outside these ranges are an error, or are stretched from smallest to largest.

    Args:
        values: bool, integers or floats, of any shape but an empty one.
        name: their name in errors.
        stretch: whether values outside the known ranges are stretched.

    Raises:
        ImageError: for another dtype, for NaN or infinity, or for values out of range without `stretch`.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name}: dtype {values.dtype}, expected bool, integers or floats")
    low, high = values.min().item(), values.max().item()
    if not np.isfinite(low + high):
        raise ImageError(f"{name}: holds NaN or infinity, expected finite values")
    kind = values.dtype.kind
    # The tolerance of a hundredth is for resampling, which overshoots a little.
    if kind == "b" or (kind == "f" and low >= -0.01 and high <= 1.01):
        black, white = 0.0, 1.0
    elif kind == "f" and low >= -0.01 * high and high <= 257.0:
        black, white = 0.0, 255.0
    elif kind in "ui" and low >= 0 and high < 1 << _BIT_DEPTHS[-1]:
        black, white = 0.0, float(next((1 << bits) - 1 for bits in _BIT_DEPTHS if high < 1 << bits))
    elif stretch:
        black, white = float(low), float(max(high, low + 1))
    else:
        raise ImageError(
            f"{name}: values from {low:g} to {high:g}, expected 0 to 1 (floats), 0 to 255 or 0 to 65535"
        )
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # in strips, to save memory
        strip = (values[top : top + _ROWS].astype(np.float64) - black) * (255.0 / (white - black))
        result[top : top + _ROWS] = np.rint(strip).clip(0, 255)
    return result
