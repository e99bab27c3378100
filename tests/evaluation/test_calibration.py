"""Confidence against IoU: known cases, and scikit-learn's AUROC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from saliency_r1.evaluation.calibration import auroc, calibrate


def test_confidence_that_equals_iou_is_calibrated() -> None:
    iou = np.linspace(0.01, 0.99, 200)
    found = calibrate(iou, iou)
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.auroc == 1
    assert found.risk[-1] == pytest.approx(1 - iou.mean())


def test_constant_overconfidence_is_the_error() -> None:
    found = calibrate(np.full(10, 0.95), np.full(10, 0.6))
    assert found.ece == pytest.approx(0.35)
    assert found.auroc is None  # every mask is good
    assert found.risk == pytest.approx([0.4] * 10)


def test_full_confidence_is_in_the_last_bin() -> None:
    assert calibrate(np.ones(3), np.ones(3)).bins == ((3, 1.0, 1.0),)


def test_auroc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 8, 300) / 8, rng.random(300) < 0.3
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_risk_does_not_depend_on_the_order_of_ties() -> None:
    rng = np.random.default_rng(1)
    confidence, iou = np.full(50, 0.5), rng.random(50)
    order = rng.permutation(50)
    assert calibrate(confidence, iou).aurc == pytest.approx(calibrate(confidence, iou[order]).aurc)


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="N > 0"):
        calibrate(np.zeros(0), np.zeros(0))
