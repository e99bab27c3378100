"""The metrics of salient instance segmentation, by pycocotools: class-agnostic mask AP.

docs/evaluation.md explains the numbers and some surprising properties of the library.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saliency_r1.data.coco_json import load_json
from saliency_r1.data.folders import listed
from saliency_r1.data.true_instances import InstanceImage, RunLengths, encode, run_lengths_of
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.evaluation import Evaluation, Row, Words
from saliency_r1.masks import connected_parts
from saliency_r1.tasks import Task

MOST_DETECTIONS = 100
"""Number of predictions of a photo that count, those with the highest scores, as in COCO."""


@dataclass(frozen=True)
class PredictedInstance:
    """One predicted instance.

    Attributes:
        mask: its run lengths.
        score: the method's own score; higher means more certain.
    """

    mask: RunLengths
    score: float


Predictions = dict[int | str, list[PredictedInstance]]
"""The predicted instances of a photo, by its key."""


def read_predictions(path: str | Path, images: Sequence[InstanceImage]) -> Predictions:
    """Read a COCO result file: a list of {"image_id", "segmentation", "score"}.

    Args:
        path: the json.
        images: the images that may be predicted; `image_id` is the key, or the stem if the key is a number.

    Raises:
        SaliencyError: if it is no such list, an image id is unknown, a score is missing, or run lengths are
            broken or of another size than the photo.
    """
    path = Path(path)
    entries = load_json(path)
    if not isinstance(entries, list):
        raise SaliencyError(
            f"{path}: not a COCO result, expected a list of objects with image_id, segmentation and score"
        )
    by_key = {image.key: image for image in images}
    by_name = {image.name: image for image in images}
    found: Predictions = defaultdict(list)
    unknown = set()
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise SaliencyError(f"{where}: no image_id, expected image_id, segmentation and score")
        key = entry["image_id"]
        image = by_key.get(key) if isinstance(key, int | str) else None
        if image is None and isinstance(key, str):
            image = by_name.get(key)
        if image is None:
            unknown.add(str(key))
            continue
        score = entry.get("score")
        if not isinstance(score, int | float) or isinstance(score, bool) or not np.isfinite(score):
            raise SaliencyError(f"{where}: score {score!r}, expected a number: AP ranks by it")
        where = f"{where} (image {key})"
        mask = run_lengths_of(entry.get("segmentation"), image.height, image.width, where)
        found[image.key].append(PredictedInstance(mask, float(score)))
    if unknown:
        example = listed(str(image.key) for image in images[:3])
        raise SaliencyError(
            f"{path}: {len(unknown)} unknown image ids: {listed(unknown)}; "
            f"expected ids of the data, as {example}"
        )
    return dict(found)


@dataclass(frozen=True)
class InstanceScores:
    """Class-agnostic mask AP, each in [0, 1]; None where there is no instance to find.

    Attributes:
        ap: mean over the IoU thresholds .50, .55, …, .95.
        ap50, ap70: AP at IoU .50 and .70.
        ar: the recall with at most 100 predictions a photo, mean over the thresholds.
    """

    ap: float | None
    ap50: float | None
    ap70: float | None
    ar: float | None


class InstanceMetrics:
    """The metrics of a set of photos.

    Example:
        >>> mask = coco_mask.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)))
        >>> metrics = InstanceMetrics()
        >>> metrics.update("a", [(mask, False)], [PredictedInstance(mask, 0.9)])
        >>> round(metrics.compute().ap70, 6)
        1.0
    """

    def __init__(self) -> None:
        self._keys: list[int | str] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._evaluated: COCOeval | None = None

    def update(
        self,
        key: int | str,
        truth: Iterable[tuple[RunLengths, bool]],
        predictions: Iterable[PredictedInstance],
    ) -> None:
        """Add a photo.

        Args:
            key: the photo's key, for `compute_each`.
            truth: run lengths of each true instance, and whether it is a crowd.
            predictions: the predicted instances.
        """
        self._evaluated = None
        self._keys.append(key)
        number = len(self._keys)
        for mask, crowd in truth:
            self._truth.append(_annotation(len(self._truth) + 1, number, mask) | {"iscrowd": int(crowd)})
        for one in predictions:
            self._found.append(_annotation(len(self._found) + 1, number, one.mask) | {"score": one.score})

    def compute(self) -> InstanceScores:
        """Return the metrics over all photos so far."""
        evaluated = self._evaluate()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluated.accumulate()
        return _scores(evaluated)

    def compute_each(self) -> dict[int | str, InstanceScores]:
        """Return the metrics of each photo as if it were the only one, by its key."""
        evaluated = self._evaluate()
        every = range(len(evaluated.params.areaRng) * len(self._keys))
        result = {}
        for number in every:
            alone = copy(evaluated)
            alone.params, alone.evalImgs = copy(evaluated.params), [evaluated.evalImgs[number]]
            alone.params.imgIds = [number + 1]
            alone._paramsEval = alone.params
            with contextlib.redirect_stdout(io.StringIO()):
                alone.accumulate()
            result[self._keys[number]] = _scores(alone)
        return result

    def _evaluate(self) -> COCOeval:
        if self._evaluated is not None:
            return self._evaluated
        images = [{"id": number + 1} for number in range(len(self._keys))]
        with contextlib.redirect_stdout(io.StringIO()):  # the library prints while it works
            evaluated = COCOeval(_coco(images, self._truth), _coco(images, self._found), "segm")
            evaluated.params.useCats = 0
            evaluated.params.areaRng, evaluated.params.areaRngLbl = evaluated.params.areaRng[:1], ["all"]
            evaluated.params.maxDets = [MOST_DETECTIONS]
            evaluated.evaluate()
        self._evaluated = evaluated
        return evaluated


def _annotation(number: int, image: int, mask: RunLengths) -> dict[str, Any]:
    area = int(coco_mask.area(mask))
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "segmentation": mask,
        "area": area,
        "iscrowd": 0,
    }


def _coco(images: list[dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "salient"}],
    }
    coco.createIndex()
    coco.annToRLE = lambda annotation: annotation["segmentation"]  # they are compressed run lengths already
    return coco


def _scores(evaluated: COCOeval) -> InstanceScores:
    precision, recall = evaluated.eval["precision"], evaluated.eval["recall"]
    thresholds = evaluated.params.iouThrs

    def mean(values: np.ndarray) -> float | None:
        defined = values[values > -1]
        return float(np.mean(defined)) if defined.size else None

    def at(iou: float) -> float | None:
        # The nearest threshold: they are floats, and .7000000000000001 is among them, not .7.
        return mean(precision[np.abs(thresholds - iou).argmin()])

    return InstanceScores(mean(precision), at(0.5), at(0.7), mean(recall))


def connected_components(mask: np.ndarray, least_share: float = 0.001) -> list[PredictedInstance]:
    """Split a saliency map into its connected parts: the instances that a method for SOD alone gives.

    Args:
        mask: probabilities, float32 (H, W) in [0, 1]; from 0.5 on they count; diagonal neighbours connect.
        least_share: share of the picture below which a part is dropped as a speck.

    Returns:
        A predicted instance for each part, its score the mean probability in it.
    """
    return [
        PredictedInstance(encode(part), float(mask[part].mean(dtype=np.float64)))
        for part in connected_parts(mask >= 0.5, least_share)
    ]


def evaluate_instances(
    images: Sequence[InstanceImage],
    predictions: Predictions,
    words: Mapping[int | str, Words] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Score every photo's predicted instances.

    Args:
        images: the photos with their instances.
        predictions: the predicted instances by photo key; a photo without an entry has none.
        words: the model's responses by photo key.
        notes: remarks that a reader of the numbers must know.
    """
    metrics = InstanceMetrics()
    fingerprint = hashlib.sha256()
    # By id, as in pycocotools, because the order decides among predictions of equal score.
    for image in sorted(images, key=lambda image: (isinstance(image.key, str), image.key)):
        metrics.update(
            image.key, [(one.mask, one.crowd) for one in image.instances], predictions.get(image.key, ())
        )
        fingerprint.update(f"{image.name}:".encode())
        for one in image.instances:
            fingerprint.update(one.mask["counts"])
            fingerprint.update(b"crowd" if one.crowd else b"")
    total, each = metrics.compute(), metrics.compute_each()
    rows = [
        Row(
            image.name,
            {name: np.nan if value is None else value for name, value in vars(each[image.key]).items()}
            | {
                "iou": union_iou(image, predictions.get(image.key, ())),
                "instances": len(image.instances),
                "predicted": len(predictions.get(image.key, ())),
            },
            image.image,
            words=words.get(image.key) if words else None,
        )
        for image in images
    ]
    count = [len(found) for found in predictions.values()]
    beyond = sum(one > MOST_DETECTIONS for one in count)
    more = (
        [f"{beyond} photos have more than {MOST_DETECTIONS} predictions; the best scored count"]
        if beyond
        else []
    )
    return Evaluation(
        task=Task.SIS,
        metrics=dict(vars(total)) | {"iou": float(np.mean([row.values["iou"] for row in rows]))},
        rows=sorted(rows, key=lambda row: row.name),
        ranked_by="iou",
        fingerprint=fingerprint.hexdigest(),
        counts={
            "photos": len(images),
            "instances": sum(len(image.instances) for image in images),
            "predicted instances": sum(count),
            "photos without a predicted instance": sum(image.key not in predictions for image in images),
        },
        notes=(*notes, *more),
    )


def union_iou(image: InstanceImage, predictions: Sequence[PredictedInstance]) -> float:
    """Return the IoU of all predicted and all true instances, crowds included; 1 if both are empty."""
    truth = [one.mask for one in image.instances]
    found = [one.mask for one in predictions]
    if not truth or not found:
        areas = coco_mask.area(truth or found) if truth or found else np.zeros(1)
        return float(not areas.any())
    first, second = coco_mask.merge(truth), coco_mask.merge(found)
    union = int(coco_mask.area(coco_mask.merge([first, second])))
    return int(coco_mask.area(coco_mask.merge([first, second], intersect=True))) / union if union else 1.0
