"""The SOD metrics of a photo and of a set: numbers and curves, without the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.arange(255, -1, -1)
"""The threshold of each point of a curve: a pixel is positive from that value on (0 to 255)."""

CURVES = ("precision", "recall", "f_curve", "e_curve")

SCALARS = (
    "mae",
    "s_measure",
    "weighted_f",
    "max_f",
    "mean_f",
    "adaptive_f",
    "max_e",
    "mean_e",
    "adaptive_e",
    "iou",
    "iou_stretched",
    "boundary_iou",
)
"""The numbers of `SodScores` and `SodResult`, in the order of tables."""

LOWER_IS_BETTER = frozenset({"mae"})


@dataclass(frozen=True)
class SodNumbers:
    """The SOD metrics, of one photo or of a set. All are in [0, 1], but E may exceed 1 by 1 / (pixels - 1).

    Attributes:
        mae: mean absolute error of the stretched prediction; the only number for which lower is better.
        s_measure: structure-measure (Fan et al., ICCV 2017), alpha 0.5.
        weighted_f: weighted F-measure (Margolin et al., CVPR 2014), beta² 1.
        max_f, max_e: the largest F (beta² 0.3) and E of the curve.
        mean_f, mean_e: the mean F and E over the thresholds.
        adaptive_f, adaptive_e: F and E at twice the mean of the prediction.
        iou: IoU at 0.5 of the unstretched prediction; 1 where prediction and truth are both empty.
        iou_stretched: above 0.5 of the stretched prediction, the library's; 0 where both are empty.
        boundary_iou: IoU of the masks' boundaries, at 0.5 of the unstretched prediction (see `boundary_iou`).
        precision, recall, f_curve, e_curve: float64 (256,), at `THRESHOLDS` of the stretched prediction.
    """

    mae: float
    s_measure: float
    weighted_f: float
    max_f: float
    mean_f: float
    adaptive_f: float
    max_e: float
    mean_e: float
    adaptive_e: float
    iou: float
    iou_stretched: float
    boundary_iou: float
    precision: np.ndarray
    recall: np.ndarray
    f_curve: np.ndarray
    e_curve: np.ndarray

    def scalars(self) -> tuple[float, ...]:
        """The numbers named in `SCALARS`."""
        return tuple(float(getattr(self, name)) for name in SCALARS)

    def curves(self) -> np.ndarray:
        """The curves named in `CURVES`, float64 (4, 256)."""
        return np.stack([getattr(self, name) for name in CURVES])


@dataclass(frozen=True)
class SodScores(SodNumbers):
    """The metrics of one photo. `max_f` and `max_e` are the largest values of its own curves."""


@dataclass(frozen=True)
class SodResult(SodNumbers):
    """The metrics of a set of photos, as papers report them: every photo has the same weight.

    `max_f` and `max_e` are the largest values of the mean curve (one threshold for all photos), not means of
    each photo's largest value. The other numbers are means of those of the photos.

    Attributes:
        count: number of photos.
    """

    count: int

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the curves."""
        return {"count": self.count, **dict(zip(SCALARS, self.scalars(), strict=True))}


class SodMean:
    """Sums over photos; memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._scalars = np.zeros(len(SCALARS))
        self._curves = np.zeros((len(CURVES), len(THRESHOLDS)))

    def add(self, scalars: Sequence[float] | np.ndarray, curves: np.ndarray) -> None:
        """Add photos.

        Args:
            scalars: the numbers named in `SCALARS` of one photo, or (N, 12) of N photos.
            curves: float64 (4, 256), the curves named in `CURVES` of the photo, or the sum over the N photos.
        """
        rows = np.atleast_2d(np.asarray(scalars, dtype=np.float64))
        self.count += len(rows)
        self._scalars += rows.sum(axis=0)
        self._curves += curves

    def result(self) -> SodResult:
        """Return the means.

        Raises:
            ValueError: if there was no photo.
        """
        if not self.count:
            raise ValueError("no photo has been scored: there is no mean of nothing")
        numbers = dict(zip(SCALARS, (self._scalars / self.count).tolist(), strict=True))
        curves = dict(zip(CURVES, self._curves / self.count, strict=True))
        numbers |= {"max_f": float(curves["f_curve"].max()), "max_e": float(curves["e_curve"].max())}
        return SodResult(count=self.count, **numbers, **curves)
