"""Closed-form matting: solve for the alpha of hair and fur between certain object and background.

Levin, Lischinski and Weiss, "A closed-form solution to natural image matting" (TPAMI 2008): within a window
of 3x3 pixels the colours of object and background each lie on a line, so alpha is a linear function of the
colour there. The pixels of a band around the mask's edge are unknown; all others are fixed.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.sparse.linalg import cg

EPSILON = 1e-6
"""Variance of the colour, in [0, 1], below which a window counts as flat."""

SURE = 0.05, 0.95
"""Probabilities beyond which a pixel is fixed as background or object."""

_STEPS, _TOLERANCE = 400, 1e-4


def closed_form(photo: np.ndarray, mask: np.ndarray, band: int | None = None) -> np.ndarray:
    """Solve for alpha around a mask's edge.

    Time and memory grow with the pixels of the band: half a second for 50,000 of them.

    Args:
        photo: uint8 (H, W, 3).
        mask: probabilities, float32 (H, W) in [0, 1].
        band: pixels on either side of the edge that are unknown, in addition to uncertain ones; default 1 %
            of the longer side.

    Returns:
        Alpha, float32 (H, W) in [0, 1].
    """
    band = max(2, round(0.01 * max(mask.shape))) if band is None else band
    solid = mask >= 0.5
    wide, narrow = (
        binary_dilation(solid, iterations=band),
        binary_erosion(solid, iterations=band, border_value=1),
    )
    unknown = (wide & ~narrow) | ((mask > SURE[0]) & (mask < SURE[1]))
    known = solid.astype(np.float32)
    if not unknown.any() or not solid.any() or min(mask.shape) < 3:
        return known
    laplacian, numbers = _laplacian(photo.astype(np.float64) / 255, unknown)
    free = unknown.ravel()[numbers]
    values = known.ravel()[numbers].astype(np.float64)
    system = laplacian[free][:, free]
    # A weak term for the mask keeps regions that no known pixel reaches.
    pull = 1e-3
    system = system + pull * sparse.identity(system.shape[0], format="csr")
    right = -laplacian[free][:, ~free] @ values[~free] + pull * mask.ravel()[numbers][free]
    diagonal = sparse.diags(1.0 / system.diagonal())
    start = mask.ravel()[numbers][free].astype(np.float64)
    found, _ = cg(system, right, x0=start, rtol=_TOLERANCE, maxiter=_STEPS, M=diagonal)
    alpha = known.ravel()
    alpha[numbers[free]] = found.clip(0, 1)
    return alpha.reshape(mask.shape)


def _laplacian(photo: np.ndarray, unknown: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
    """Return the matting Laplacian of all windows with an unknown pixel, over the pixels of these windows.

    Returns:
        The matrix, and for each of its rows the pixel's number in the photo.
    """
    width = unknown.shape[1]
    centres = binary_dilation(unknown, np.ones((3, 3)))
    centres[[0, -1]] = centres[:, [0, -1]] = False
    rows, columns = np.nonzero(centres)
    shifts = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    pixels = (rows[:, None] + shifts[:, 0]) * width + columns[:, None] + shifts[:, 1]
    colours = photo.reshape(-1, 3)[pixels]
    centred = colours - colours.mean(1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", centred, centred) / 9 + EPSILON / 9 * np.eye(3)
    weights = np.einsum("nki,nij,nlj->nkl", centred, np.linalg.inv(covariance), centred, optimize=True)
    entries = np.eye(9) - (1 + weights) / 9
    numbers, inverse = np.unique(pixels, return_inverse=True)
    inverse = inverse.reshape(pixels.shape)
    first = np.repeat(inverse, 9, axis=1).ravel()
    second = np.tile(inverse, (1, 9)).ravel()
    size = len(numbers)
    return sparse.csr_array((entries.ravel(), (first, second)), shape=(size, size)), numbers
