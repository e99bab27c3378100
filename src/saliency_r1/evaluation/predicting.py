"""Let a model predict a whole set into files, so that a stopped run can continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.data.coco_json import load_json
from saliency_r1.data.groups import by_group
from saliency_r1.data.samples import Sample
from saliency_r1.data.true_instances import InstanceImage, run_lengths_of
from saliency_r1.evaluation.evaluation import Words, words_in
from saliency_r1.evaluation.instance_metrics import PredictedInstance, Predictions
from saliency_r1.pictures.finding import FoundImage
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.pipeline import OnError, SaliencyPipeline

SCORE = (
    "The score of an instance is the model's own, from photo and expression alone: the IoU that the "
    "segmenter expects its mask to have. No ground truth enters it."
)
"""The definition of an instance's score, for every output that ranks by it."""


def predict_maps(
    pipe: SaliencyPipeline,
    samples: Sequence[Sample],
    task: Task,
    folder: Path,
    *,
    reasoning: bool = True,
    group_images: int = GROUP_IMAGES,
    on_error: OnError | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write `<name>_mask.png` and `<name>.json` of every sample; those that are there stay.

    Args:
        pipe: the model.
        samples: samples of a SOD set, or of a CoSOD set, where a group's photos are asked about together.
        task: `sod` or `cosod`.
        folder: folder of the predictions.
        reasoning: whether the policy reasons before it answers.
        group_images: number of photos of a group that the policy sees at a time.
        on_error: called for a photo that cannot be read or asked about; it then has no files.
        progress: called with the number of finished photos and of all photos.

    Raises:
        ImageError: if there is such a photo and no `on_error`.
    """
    questions = list(by_group(samples).values()) if task is Task.COSOD else [list(samples)]
    todo = [
        [sample for sample in question if not _done(folder, sample.name)] if task is Task.SOD else question
        for question in questions
        if not all(_done(folder, sample.name) for sample in question)
    ]
    done = len(samples) - sum(map(len, todo))
    progress(done, len(samples))
    for question in todo:
        photos = [FoundImage(sample.image, sample.name) for sample in question]
        results = pipe.stream(photos, task, reasoning=reasoning, group_images=group_images, on_error=on_error)
        for result in results:
            result.save(folder, overlay=False, cutout=False, overwrite=True)
            done += 1
            progress(done, len(samples))


def predict_instances(
    pipe: SaliencyPipeline,
    images: Sequence[InstanceImage],
    folder: Path,
    *,
    reasoning: bool = True,
    on_error: OnError | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Predictions, dict[int | str, Words]]:
    """Write `<name>.json` of every photo and give the instances and words of all; see `predict_maps`."""
    todo = [FoundImage(image.image, image.name) for image in images if not _done(folder, image.name)]
    done = len(images) - len(todo)
    progress(done, len(images))
    for result in pipe.stream(todo, Task.SIS, reasoning=reasoning, on_error=on_error):
        result.save(folder, mask=False, overlay=False, cutout=False, overwrite=True)
        done += 1
        progress(done, len(images))
    predictions: Predictions = {}
    words = {}
    for image in images:
        path = _json(folder, image.name)
        if on_error is not None and not path.is_file():
            continue  # nothing was found in it
        content = load_json(path)
        words[image.key] = words_in(content)
        found = [
            PredictedInstance(
                run_lengths_of(one["segmentation"], image.height, image.width, str(path)), float(one["score"])
            )
            for one in content["instances"]
        ]
        if found:
            predictions[image.key] = found
    return predictions, words


def coco_results(predictions: Predictions) -> bytes:
    """The predictions as a COCO result file."""
    return json.dumps(
        [
            {
                "image_id": key,
                "category_id": 1,
                "segmentation": one.mask | {"counts": one.mask["counts"].decode()},
                "score": one.score,
            }
            for key, found in predictions.items()
            for one in found
        ]
    ).encode()


def _json(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _done(folder: Path, name: str) -> bool:
    """The json is written last."""
    return _json(folder, name).is_file()
