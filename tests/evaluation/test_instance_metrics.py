"""Salient instance segmentation: the metrics against pycocotools called directly, and prediction files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from drawn_data import real_data
from saliency_r1.data.coco_json import read_coco
from saliency_r1.data.true_instances import InstanceImage, TrueInstance, decode, encode, run_lengths_of
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.instance_metrics import (
    InstanceMetrics,
    PredictedInstance,
    connected_components,
    evaluate_instances,
    read_predictions,
)

# pycocotools 2.0.11 warns of numpy's next version at every decoding.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def perturbed(images: list[InstanceImage], seed: int) -> list[dict[str, Any]]:
    """Predictions that miss some instances, displace others, invent some, with scores that tie."""
    rng = np.random.default_rng(seed)
    found = []
    for image in images:
        for one in image.instances:
            mask = decode(one.mask)
            if rng.random() < 0.2:
                continue
            if rng.random() < 0.1:
                mask = np.zeros_like(mask)
                mask[: image.height // 3, : image.width // 3] = True
            moved = np.roll(mask, rng.integers(-5, 6, 2), (0, 1))
            lengths = encode(moved)
            found.append(
                {
                    "image_id": image.key,
                    "category_id": 1,
                    "segmentation": lengths | {"counts": lengths["counts"].decode()},
                    "score": round(float(rng.random()), 2),
                }
            )
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pycocotools_on_coco_with_perturbed_masks(seed: int, tmp_path: Path) -> None:
    path = real_data("COCO-train") / "instances.json"
    images = list(read_coco(path))
    results = tmp_path / "results.json"
    results.write_text(json.dumps(perturbed(images, seed)))
    ours = evaluate_instances(images, read_predictions(results, images)).metrics
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        direct = COCOeval(truth, truth.loadRes(str(results)), "segm")
        direct.params.useCats = 0
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    assert 0.05 < direct.stats[0] < 0.9
    at70 = int(np.abs(direct.params.iouThrs - 0.7).argmin())
    precision70 = direct.eval["precision"][at70, :, :, 0, 2]
    theirs = {
        "ap": direct.stats[0],
        "ap50": direct.stats[1],
        "ap70": precision70[precision70 > -1].mean(),
        "ar": direct.stats[8],
    }
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def square(x: int, y: int, side: int = 10, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def image_of(key: int | str, *masks: np.ndarray) -> InstanceImage:
    return InstanceImage(
        key, str(key), Path(f"{key}.jpg"), 40, 50, tuple(TrueInstance(encode(mask)) for mask in masks)
    )


def found(mask: np.ndarray, score: float) -> PredictedInstance:
    return PredictedInstance(encode(mask), score)


def test_ap70_is_at_iou_070() -> None:
    """An IoU of 0.72 is a hit at .50 and at .70 and no longer at .75."""
    truth = square(0, 0, 20)
    part = truth.copy()
    part[:, 14:] = False
    part[:8, 14] = True
    assert part.sum() / truth.sum() == 0.72
    metrics = InstanceMetrics()
    metrics.update(1, [(encode(truth), False)], [found(part, 0.5)])
    scores = metrics.compute()
    assert scores.ap50 == pytest.approx(1)
    assert scores.ap70 == pytest.approx(1)
    assert scores.ap == pytest.approx(0.5)


def test_the_surer_of_two_predictions_of_one_instance_counts() -> None:
    truth = image_of(1, square(5, 5))
    good_first = evaluate_instances([truth], {1: [found(square(5, 5), 0.9), found(square(30, 5), 0.1)]})
    bad_first = evaluate_instances([truth], {1: [found(square(5, 5), 0.1), found(square(30, 5), 0.9)]})
    assert good_first.metrics["ap"] == pytest.approx(1)
    assert bad_first.metrics["ap"] == pytest.approx(0.5)


def test_each_photo_and_all() -> None:
    images = [image_of("a", square(5, 5)), image_of("b", square(5, 5)), image_of("c")]
    evaluation = evaluate_instances(images, {"a": [found(square(5, 5), 0.9)]})
    rows = {row.name: row.values for row in evaluation.rows}
    assert rows["a"]["ap"] == pytest.approx(1)
    assert rows["b"]["ap"] == 0
    assert np.isnan(rows["c"]["ap"])  # nothing to find, nothing found
    assert [rows[name]["iou"] for name in "abc"] == [1, 0, 1]
    assert evaluation.metrics["ar"] == pytest.approx(0.5)
    assert evaluation.counts["photos without a predicted instance"] == 2


def test_nothing_to_find_has_no_ap() -> None:
    assert evaluate_instances([image_of(1)], {}).metrics["ap"] is None


def test_polygons_and_all_kinds_of_run_lengths_are_one_mask() -> None:
    mask = square(5, 5, 20)
    packed = encode(mask)
    runs = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.r_[2, mask.ravel("F"), 2])))]
    raw = {"size": [40, 50], "counts": runs if not mask.flat[0] else [0, *runs]}
    text = packed | {"counts": packed["counts"].decode()}
    polygon = [[5, 5, 25, 5, 25, 25, 5, 25]]
    for given in (packed, text, raw, polygon):
        np.testing.assert_array_equal(decode(run_lengths_of(given, 40, 50, "test")), mask)


@pytest.mark.parametrize("seed", range(20))
def test_random_run_lengths_are_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 23)) < rng.random()
    given = encode(mask)
    assert run_lengths_of(given, 37, 23, "test") == given


GOOD = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": encode(square(5, 5))}
GOOD["segmentation"]["counts"] = GOOD["segmentation"]["counts"].decode()
OTHER_SIZE = encode(square(5, 5, size=(30, 30)))
OTHER_SIZE["counts"] = OTHER_SIZE["counts"].decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json {", "not json"),
        (json.dumps({"images": []}), "expected a list"),
        (json.dumps([GOOD | {"image_id": 7}, GOOD | {"image_id": 8}]), "2 unknown image ids: 7, 8"),
        (json.dumps([GOOD | {"image_id": [1]}]), "unknown image ids"),
        (
            json.dumps([{"image_id": 1, "segmentation": GOOD["segmentation"]}]),
            "score None, expected a number",
        ),
        (json.dumps([GOOD | {"score": "high"}]), "score 'high'"),
        (
            json.dumps([GOOD | {"segmentation": OTHER_SIZE}]),
            r"size \[30, 30\], expected the photo's \[40, 50\]",
        ),
        (json.dumps([GOOD | {"segmentation": {"size": [40, 50], "counts": "0"}}]), "do not add up"),
        (json.dumps([GOOD | {"segmentation": {"size": [40, 50], "counts": "\x01é"}}]), "broken run lengths"),
        (json.dumps([GOOD | {"segmentation": {"size": [40, 50], "counts": [3, 4]}}]), "do not add up"),
        (json.dumps([GOOD | {"segmentation": [["x"]]}]), "polygons"),
        (json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]), "no segmentation"),
        (json.dumps(["x"]), "no image_id"),
    ],
)
def test_bad_prediction_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(SaliencyError, match=message) as caught:
        read_predictions(path, [image_of(1)])
    assert "mine.json" in str(caught.value)
    assert caught.value.exit_code == 2


def test_photos_without_ids_go_by_their_stems(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([GOOD | {"image_id": "0001"}]))
    assert list(read_predictions(path, [image_of("0001")])) == ["0001"]


def test_a_saliency_map_is_cut_into_its_parts() -> None:
    mask = np.zeros((40, 60), np.float32)
    mask[2:10, 2:10] = 0.75
    mask[10:14, 10:14] = 1  # touches the first at a corner
    mask[30:38, 40:50] = 0.5
    mask[20, 20] = 1  # a speck
    mask[2:10, 30:40] = 0.49
    first, second = connected_components(mask)
    assert np.array_equal(decode(first.mask), (mask >= 0.5) & (np.arange(40)[:, None] < 20))
    assert first.score == pytest.approx((0.75 * 64 + 16) / 80)
    assert (decode(second.mask).sum(), second.score) == (80, 0.5)
    assert len(connected_components(mask, least_share=0)) == 3
    assert connected_components(np.zeros((4, 4), np.float32)) == []
