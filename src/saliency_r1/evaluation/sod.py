"""The metrics of salient object detection, by pysodmetrics.

Every number except the boundary IoU equals that of https://github.com/lartpang/PySODMetrics within 1e-6;
tests check this. The library's metric objects, called separately, normalise the prediction five times, build
the same two histograms twice and smooth with a slow convolution. Here one pass serves all metrics. The
library still computes the S-measure, parts of the E-measure, the F-measures and the weighted F's kernel.
docs/evaluation.md explains the numbers and some surprising properties of the library.
"""

from __future__ import annotations

import cv2
import numpy as np
from py_sod_metrics import Emeasure, FmeasureHandler, IOUHandler, PrecisionHandler, Smeasure, WeightedFmeasure
from py_sod_metrics.utils import EPS, get_adaptive_threshold
from scipy.ndimage import distance_transform_edt

from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.sod_scores import SodMean, SodResult, SodScores
from saliency_r1.masks import boundary_iou

__all__ = ["SodMetrics", "SodResult", "SodScores", "eight_bit", "score"]

_HALF = 128


class _EmeasureCurve(Emeasure):
    """The E-measure with its curve from counts that were computed before."""

    def curve(self, true_positives: np.ndarray, false_positives: np.ndarray) -> np.ndarray:
        positives = true_positives + false_positives
        negatives = self.gt_size - positives
        if self.gt_fg_numel == 0:
            total = negatives
        elif self.gt_fg_numel == self.gt_size:
            total = positives
        else:
            counts, pairs = self.generate_parts_numel_combinations(
                true_positives, false_positives, positives, negatives
            )
            total = np.zeros(positives.shape)
            for count, (of_prediction, of_truth) in zip(counts, pairs, strict=True):
                alignment = 2 * (of_prediction * of_truth) / (of_prediction**2 + of_truth**2 + EPS)
                total += (alignment + 1) ** 2 / 4 * count
        return total / (self.gt_size - 1 + EPS)


class _WeightedFmeasure(WeightedFmeasure):
    """The weighted F-measure, with its expensive steps in OpenCV or only around the object."""

    def __init__(self) -> None:
        super().__init__()
        self._kernel = self.matlab_style_gauss2D((7, 7), sigma=5)

    def cal_wfm(self, pred: np.ndarray, gt: np.ndarray) -> float:
        outside = ~gt
        error = np.abs(pred - gt)
        distance = cv2.distanceTransform(outside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # OpenCV's last digits depend on where the array lies in memory; squared distances are whole numbers.
        distance = np.sqrt(np.rint(np.square(distance)))
        weight = 2 - np.exp(np.float32(np.log(0.5) / 5) * distance)
        false_positive = float(np.sum(error * weight * outside))

        # Smoothing is needed only inside the truth, where it reaches no further than half the kernel's width.
        around = _box_around(gt, margin=self._kernel.shape[0] // 2)
        inside, near_error = gt[around], error[around]
        # Outside, the error of the nearest pixel of the truth is used; inside, that is the pixel itself.
        rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        smooth = cv2.filter2D(near_error[rows, columns], -1, self._kernel, borderType=cv2.BORDER_CONSTANT)
        inside_error = np.minimum(smooth, near_error)[inside]

        true_positive = inside_error.size - inside_error.sum()
        recall = 1 - inside_error.mean()
        precision = true_positive / (true_positive + false_positive + EPS)
        return float((1 + self.beta) * recall * precision / (recall + self.beta * precision + EPS))


def _box_around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's bounding box, widened by a margin, within the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


_S = Smeasure()
_WEIGHTED_F = _WeightedFmeasure()
_F = FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3)
_IOU = IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True)
_PRECISION = PrecisionHandler(with_dynamic=True, with_adaptive=False)


def eight_bit(prediction: np.ndarray) -> np.ndarray:
    """Convert a prediction to what its file would hold: uint8, probabilities times 255, rounded.

    Raises:
        SaliencyError: if it is neither uint8, bool nor floats in [0, 1].
    """
    if prediction.dtype == np.uint8:
        return prediction
    if prediction.dtype == bool:
        return prediction.astype(np.uint8) * np.uint8(255)
    if prediction.dtype.kind != "f":
        raise SaliencyError(f"prediction: dtype {prediction.dtype}, expected uint8 or floats in [0, 1]")
    if prediction.size and not (prediction.min() >= 0 and prediction.max() <= 1):
        raise SaliencyError(
            f"prediction: values from {prediction.min():g} to {prediction.max():g}, expected floats in [0, 1]"
        )
    return np.rint(prediction * 255).astype(np.uint8)


def score(prediction: np.ndarray, truth: np.ndarray) -> SodScores:
    """Compute all metrics of one photo.

    Args:
        prediction: (H, W), uint8, or floats in [0, 1], which are first rounded to 8 bits as in a saved mask.
        truth: bool (H, W).

    Raises:
        SaliencyError: if the shapes differ or a dtype is wrong.

    Example:
        >>> truth = np.zeros((40, 60), bool)
        >>> truth[10:30, 20:40] = True
        >>> round(score(truth.astype(np.float32), truth).s_measure, 6)
        1.0
    """
    if truth.dtype != bool or truth.ndim != 2:
        raise SaliencyError(f"truth: {truth.dtype} {truth.shape}, expected bool (H, W)")
    if prediction.shape != truth.shape or not truth.size:
        raise SaliencyError(f"prediction: {prediction.shape}, expected the truth's shape {truth.shape}")
    values = eight_bit(prediction)

    # (2, 256) numbers of pixels by truth and value. Everything but S and the weighted F follows from them.
    counts = np.bincount((values + truth * np.uint16(256)).ravel(), minlength=512).reshape(2, 256)
    foreground, size = int(counts[1].sum()), truth.size
    present = np.flatnonzero(counts.sum(axis=0))
    levels = np.arange(256) / 255
    if len(present) > 1:
        low, high = levels[present[0]], levels[present[-1]]
        levels = (levels - low) / (high - low)
    levels = levels.clip(0, 1)
    stretched = levels[values]

    # After stretching the library rounds down to 8 bits.
    cut = (levels * 255).astype(np.uint8)
    above = [np.bincount(cut, weights=row, minlength=256)[::-1].cumsum() for row in counts]
    curve = _confusion(above[1], above[0], foreground, size)
    adaptive_threshold = get_adaptive_threshold(stretched)
    adaptive = _confusion(*_taken(counts, levels >= adaptive_threshold), foreground, size)
    binary = _confusion(*_taken(counts, levels > 0.5), foreground, size)
    plain = _confusion(*_taken(counts, np.arange(256) >= _HALF), foreground, size)

    e_measure = _EmeasureCurve()
    e_measure.gt_fg_numel, e_measure.gt_size = foreground, size
    e_adaptive = e_measure.curve(np.array([adaptive["tp"]]), np.array([adaptive["fp"]]))
    f_curve, e_curve = _F(**curve), e_measure.curve(curve["tp"], curve["fp"])
    return SodScores(
        mae=float((counts[0] @ levels + counts[1] @ (1 - levels)) / size),
        s_measure=float(_S.cal_sm(stretched, truth)),
        weighted_f=_WEIGHTED_F.cal_wfm(stretched, truth) if foreground else 0.0,
        max_f=float(f_curve.max()),
        mean_f=float(f_curve.mean()),
        adaptive_f=float(_F(**adaptive)),
        max_e=float(e_curve.max()),
        mean_e=float(e_curve.mean()),
        adaptive_e=float(e_adaptive[0]),
        iou=float(_IOU(**plain)) if plain["tp"] + plain["fp"] + plain["fn"] else 1.0,
        iou_stretched=float(_IOU(**binary)),
        boundary_iou=boundary_iou(values >= _HALF, truth),
        precision=_PRECISION(**curve),
        recall=_F.recall(**curve),
        f_curve=f_curve,
        e_curve=e_curve,
    )


def _taken(counts: np.ndarray, levels: np.ndarray) -> tuple[int, int]:
    """Return the true and false positives if the pixels of those values are positive."""
    return int(counts[1, levels].sum()), int(counts[0, levels].sum())


def _confusion(tp: np.ndarray | int, fp: np.ndarray | int, foreground: int, size: int) -> dict:
    return {"tp": tp, "fp": fp, "tn": size - foreground - fp, "fn": foreground - tp}


class SodMetrics:
    """The metrics of a set of photos, one photo at a time; memory does not grow with their number.

    Example:
        >>> metrics = SodMetrics()
        >>> truth = np.zeros((40, 60), bool)
        >>> truth[10:30, 20:40] = True
        >>> metrics.update(truth.astype(np.float32), truth).iou
        1.0
        >>> metrics.compute().mae
        0.0
    """

    def __init__(self) -> None:
        self._mean = SodMean()

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> SodScores:
        """Add a photo and return its scores; arguments and errors are those of `score`."""
        scores = score(prediction, truth)
        self._mean.add(scores.scalars(), scores.curves())
        return scores

    def compute(self) -> SodResult:
        """Return the metrics over all photos so far.

        Raises:
            ValueError: if there was no photo.
        """
        return self._mean.result()
