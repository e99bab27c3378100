"""The SOD metrics against pysodmetrics called directly, and what a user relies on besides."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import py_sod_metrics as library
import pytest
from PIL import Image

from drawn_data import prediction, real_data, scene
from saliency_r1.data.duts import load_duts
from saliency_r1.data.mask_files import load_grey
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.sod import SodMetrics, score
from saliency_r1.evaluation.sod_scores import SCALARS, SodResult, SodScores

KINDS = ("soft", "binary", "empty", "inverted")


class Direct:
    """Every metric object of the library by itself."""

    def __init__(self) -> None:
        self.mae, self.s, self.wf = library.MAE(), library.Smeasure(), library.WeightedFmeasure()
        self.e = library.Emeasure()
        self.f = library.FmeasureV2(
            {
                "f": library.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3),
                "iou": library.IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True),
                "precision": library.PrecisionHandler(with_dynamic=True, with_adaptive=False),
                "recall": library.RecallHandler(with_dynamic=True, with_adaptive=False),
            }
        )

    def step(self, values: np.ndarray, mask: np.ndarray) -> None:
        for metric in (self.mae, self.s, self.wf, self.e, self.f):
            metric.step(values, mask)

    def results(self) -> dict[str, float | np.ndarray]:
        e, f = self.e.get_results()["em"], self.f.get_results()
        return {
            "mae": self.mae.get_results()["mae"],
            "s_measure": self.s.get_results()["sm"],
            "weighted_f": self.wf.get_results()["wfm"],
            "max_f": f["f"]["dynamic"].max(),
            "mean_f": f["f"]["dynamic"].mean(),
            "adaptive_f": f["f"]["adaptive"],
            "max_e": e["curve"].max(),
            "mean_e": e["curve"].mean(),
            "adaptive_e": e["adp"],
            "iou_stretched": f["iou"]["binary"],
            "precision": f["precision"]["dynamic"],
            "recall": f["recall"]["dynamic"],
            "f_curve": f["f"]["dynamic"],
            "e_curve": e["curve"],
        }


def agree(ours: SodScores | SodResult, theirs: dict[str, float | np.ndarray]) -> None:
    for name, value in theirs.items():
        np.testing.assert_allclose(getattr(ours, name), value, rtol=0, atol=1e-6, err_msg=name)


def of_kind(kind: str, mask: np.ndarray, soft: np.ndarray) -> np.ndarray:
    return {
        "soft": soft,
        "binary": np.where(soft > 127, 255, 0).astype(np.uint8),
        "empty": np.zeros_like(mask),
        "inverted": 255 - soft,
    }[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_equals_pysodmetrics_on_real_pairs(kind: str) -> None:
    samples = load_duts(real_data("DUTS"))[:: 10_552 // 50][:50]
    assert len(samples) == 50  # of each kind: 200 pairs
    ours, direct = SodMetrics(), Direct()
    for number, sample in enumerate(samples):
        assert sample.mask is not None
        mask = load_grey(sample.mask)
        soft = np.asarray(prediction(Image.fromarray(mask), number))
        values = of_kind(kind, mask, soft)
        each, alone = ours.update(values, mask > 127), Direct()
        alone.step(values, mask)
        agree(each, alone.results())
        direct.step(values, mask)
    agree(ours.compute(), direct.results())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truth", ["disc", "empty", "full"])
def test_equals_pysodmetrics_on_drawn_pairs(kind: str, truth: str) -> None:
    ours, direct = SodMetrics(), Direct()
    for seed in range(4):
        _, picture = scene(seed)
        mask = {
            "disc": np.asarray(picture),
            "empty": np.zeros(picture.size[::-1], np.uint8),
            "full": np.full(picture.size[::-1], 255, np.uint8),
        }[truth]
        values = of_kind(kind, mask, np.asarray(prediction(picture, seed)))
        ours.update(values, mask > 127)
        direct.step(values, mask)
    agree(ours.compute(), direct.results())


@pytest.mark.parametrize("level", [0, 1, 77, 128, 255])
def test_equals_pysodmetrics_on_predictions_of_one_value(level: int) -> None:
    mask = np.asarray(scene(1)[1])
    values, direct = np.full_like(mask, level), Direct()
    direct.step(values, mask)
    agree(score(values, mask > 127), direct.results())


def test_a_perfect_prediction() -> None:
    mask = np.asarray(scene(2)[1]) > 127
    perfect = score(mask.astype(np.float32), mask)
    assert perfect.mae == 0
    assert perfect.iou == 1
    assert perfect.s_measure == pytest.approx(1)
    assert perfect.max_f == pytest.approx(1)
    assert perfect.mean_f < 1  # at threshold 0 everything is taken


def test_iou_is_of_the_prediction_as_it_is() -> None:
    mask = np.asarray(scene(3)[1]) > 127
    faint = mask.astype(np.float32) * 0.4
    assert score(faint, mask).iou == 0
    assert score(faint, mask).iou_stretched == 1
    assert (
        score(mask * np.float32(0.5), mask).iou == 1
    )  # half counts as salient, as in a result's binary mask


def test_nothing_there_and_nothing_found() -> None:
    nothing = np.zeros((20, 30), bool)
    scores = score(nothing.astype(np.float32), nothing)
    assert (scores.iou, scores.iou_stretched, scores.mae, scores.max_f) == (1, 0, 0, 0)


def test_floats_count_as_the_file_they_are_saved_as() -> None:
    _, picture = scene(4)
    mask, values = np.asarray(picture) > 127, np.asarray(prediction(picture, 4))
    as_floats = score(values.astype(np.float32) / 255, mask)
    assert as_floats.scalars() == score(values, mask).scalars()


def test_order_does_not_matter() -> None:
    pairs = [
        (np.asarray(prediction(scene(seed)[1], seed)), np.asarray(scene(seed)[1]) > 127) for seed in range(5)
    ]
    one, other = SodMetrics(), SodMetrics()
    for pair in pairs:
        one.update(*pair)
    for pair in reversed(pairs):
        other.update(*pair)
    for name in SCALARS:
        assert getattr(one.compute(), name) == pytest.approx(getattr(other.compute(), name), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "truth"),
    [
        (np.zeros((4, 5), np.float32), np.zeros((5, 4), bool)),
        (np.zeros((4, 5), np.int64), np.zeros((4, 5), bool)),
        (np.full((4, 5), 1.5), np.zeros((4, 5), bool)),
        (np.full((4, 5), np.nan), np.zeros((4, 5), bool)),
        (np.zeros((4, 5)), np.zeros((4, 5), np.uint8)),
        (np.zeros((0, 5)), np.zeros((0, 5), bool)),
    ],
)
def test_wrong_arrays_are_refused(values: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(SaliencyError):
        score(values, truth)


def test_no_photo_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no photo"):
        SodMetrics().compute()


def test_evaluation_needs_no_torch_and_its_parent_no_metric_library() -> None:
    code = (
        "import sys, saliency_r1.evaluation.runner; assert 'py_sod_metrics' not in sys.modules;"
        "import saliency_r1.evaluation.sod; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
