"""Run an evaluation: read data and predictions, or let a model predict, and write the files of a run."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.data.layouts import load_instances, load_maps
from saliency_r1.data.true_instances import InstanceImage
from saliency_r1.errors import ImageError
from saliency_r1.evaluation import outputs
from saliency_r1.evaluation.evaluation import Evaluation
from saliency_r1.evaluation.maps import evaluate_maps, run_key
from saliency_r1.evaluation.outputs import RunFacts
from saliency_r1.evaluation.predictions import match_predictions
from saliency_r1.evaluation.reading import BY_BRIGHTNESS, Reading, look_ahead
from saliency_r1.evaluation.report.page import report
from saliency_r1.evaluation.report.pictures import Captioned, instance_pictures, map_pictures
from saliency_r1.evaluation.workspace import Workspace, key_of, refuse_finished
from saliency_r1.extras import check_extra
from saliency_r1.policy.endpoints.endpoint import EndpointError
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.evaluation.instance_metrics import PredictedInstance, Predictions
    from saliency_r1.pipeline import SaliencyPipeline

GIVEN_SCORE = "The score of an instance is the one in the given file."

Progress = Callable[[str, int, int], None]
"""Called with the stage, the number of finished photos and of all photos."""


@dataclass(frozen=True)
class Request:
    """The settings of an evaluation.

    Attributes:
        task: the task of the data.
        data: folder of the data, or a json file for SIS.
        out: the run's folder.
        predictions: folder of maps, or json file for SIS; None to let a model predict.
        model: the model's name in outputs, if there is a model.
        reasoning: whether the model reasons.
        group_images: photos of a CoSOD group that the policy sees at a time.
        split: `train` or `validation`, see `load_splits`; None for all photos.
        missing: `error`, or `empty` to score an empty mask where a prediction cannot be scored.
        reading: how masks and predictions are read.
        workers: number of scoring processes; 0 uses this one.
        overwrite: whether a finished run in `out` may be replaced.
        command: the command line, for the record.
        prices: prices per million prompt and completion tokens of an endpoint, in any currency.
        asked: settings for loading and asking the policy; other settings make another run.
    """

    task: Task
    data: Path
    out: Path
    predictions: Path | None = None
    model: str | None = None
    reasoning: bool = True
    group_images: int = GROUP_IMAGES
    split: str | None = None
    missing: str = "error"
    reading: Reading = BY_BRIGHTNESS
    workers: int = 2
    overwrite: bool = False
    command: str = ""
    prices: tuple[float, float] = (0.0, 0.0)
    asked: PolicyOptions = field(default_factory=PolicyOptions)

    @property
    def data_name(self) -> str:
        """The name of the data in tables."""
        path = self.data.absolute()
        name = path.parent.name if path.suffix == ".json" else path.name
        return f"{name} {self.split}" if self.split else name

    @property
    def method(self) -> str:
        """The name of the method in tables."""
        if self.predictions is None:
            return (self.model or "model") + ("" if self.reasoning else " (fast)")
        path = self.predictions.absolute()
        if path.suffix == ".json":
            return path.stem
        same = path.name.lower() == self.data.absolute().name.lower() or path.name == "predictions"
        return path.parent.name if same else path.name

    def with_default_out(self) -> Request:
        """Return the request with `out` named after data and method, in lower case, in the folder `runs`."""
        words = re.sub(r"[^a-z0-9._]+", "-", f"{self.data_name} {Path(self.method).name}".lower())
        return replace(self, out=Path("runs") / words.strip("-"))


def evaluate(
    request: Request,
    load_model: Callable[[], SaliencyPipeline] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Evaluation, RunFacts]:
    """Run it, and write summary.json, per_image.csv, row.md, row.tex and report.html into `request.out`.

    Args:
        request: the evaluation's settings.
        load_model: loads the model if there are no predictions; called after data and folders were checked.
        progress: called with the progress.

    Returns:
        The metrics of the set and of each photo, and the facts of the run.

    Raises:
        SaliencyError: if the input is bad; no earlier run was overwritten then.

    Example:
        >>> from saliency_r1 import Request, SaliencyPipeline, Task, evaluate
        >>> request = Request(Task.SOD, Path("DATA/ECSSD"), Path("runs/ecssd"), model="nano")
        >>> evaluation, _ = evaluate(request, SaliencyPipeline.from_pretrained)  # doctest: +SKIP
        >>> evaluation.metrics["mae"], evaluation.rows[0].values["s_measure"]  # doctest: +SKIP
    """
    start = time.perf_counter()
    check_extra("evaluate", "an evaluation")
    refuse_finished(request.out, request.overwrite)
    kind: type[_Run] = _Instances if request.task is Task.SIS else _Maps
    run = kind(request, load_model, progress)
    evaluation = run.evaluate()
    facts = RunFacts(
        data=request.data,
        data_name=request.data_name,
        method=request.method,
        predictions=request.predictions,
        model=run.model_name,
        reasoning=None if request.predictions else request.reasoning,
        split=request.split,
        missing=request.missing,
        command=request.command,
        seconds=time.perf_counter() - start,
        prices=request.prices,
    )
    moved = {run.workspace.predictions: request.out / "predictions"}
    run.workspace.finish(
        {
            "report.html": report(evaluation, facts, run.pictures_of),
            "per_image.csv": outputs.per_image_csv(evaluation, moved),
            "row.md": outputs.markdown_row(evaluation, facts),
            "row.tex": outputs.latex_row(evaluation, facts),
            "summary.json": outputs.summary(evaluation, facts),
            **run.more_outputs(),
        }
    )
    return evaluation, facts


class _Run(ABC):
    """Run an evaluation."""

    def __init__(
        self, request: Request, load_model: Callable[[], SaliencyPipeline] | None, progress: Progress
    ) -> None:
        self.request, self.load_model, self.progress = request, load_model, progress
        self.model_name: str | None = None
        self.workspace = Workspace(request.out, self.read(request), overwrite=request.overwrite)

    @abstractmethod
    def read(self, request: Request) -> str:
        """Read the data, and predictions if there are any; return the key of the run."""

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Predict, if there is a model, and score."""

    def load(self) -> SaliencyPipeline:
        """Load the model, and remember its name."""
        if self.load_model is None:
            raise ValueError("neither predictions nor a model: give one")
        pipe = self.load_model()
        self.model_name = pipe.name
        return pipe

    @abstractmethod
    def pictures_of(self, name: str) -> list[Captioned]:
        """Return the pictures of a photo for the report."""

    def more_outputs(self) -> dict[str, bytes]:
        """Return the files that only this kind of run writes, by name."""
        return {}


class _Maps(_Run):
    """Run an evaluation of SOD or CoSOD."""

    def read(self, request: Request) -> str:
        self.samples = load_maps(request.data, request.task, request.split)
        if request.predictions is not None:
            matched = match_predictions(self.samples, request.predictions, resize=request.reading.resize)
            if request.missing != "empty":
                matched.refuse_problems()
            key = run_key(matched, request.task, request.missing, request.reading)
            predictions = [pair.prediction for pair in matched.pairs if pair.prediction is not None]
            look_ahead(predictions, request.reading, predictions=True)
        else:
            key = _model_key(request, [path for one in self.samples for path in (one.image, one.mask)])
        look_ahead([one.mask for one in self.samples if one.mask is not None], request.reading)
        return key

    def evaluate(self) -> Evaluation:
        request = self.request
        if request.predictions is None:
            self._predict()
        folder = request.predictions or self.workspace.predictions
        matched = match_predictions(self.samples, folder, resize=request.reading.resize)
        if request.missing != "empty":
            matched.refuse_problems()
        evaluation = evaluate_maps(
            self.samples,
            matched,
            request.task,
            self.workspace,
            workers=request.workers,
            missing=request.missing,
            reading=request.reading,
            progress=lambda done, total: self.progress("scoring", done, total),
        )
        self._rows = {row.name: row for row in evaluation.rows}
        return evaluation

    def _predict(self) -> None:
        from saliency_r1.evaluation.predicting import predict_maps

        predict_maps(
            self.load(),
            self.samples,
            self.request.task,
            self.workspace.predictions,
            reasoning=self.request.reasoning,
            group_images=self.request.group_images,
            on_error=_left_out if self.request.missing == "empty" else None,
            progress=lambda done, total: self.progress("predicting", done, total),
        )

    def pictures_of(self, name: str) -> list[Captioned]:
        row = self._rows[name]
        return map_pictures(row.image, row.truth, {"prediction": row.prediction}, self.request.reading)


class _Instances(_Run):
    """Run an evaluation of SIS."""

    def read(self, request: Request) -> str:
        from saliency_r1.evaluation.instance_metrics import read_predictions

        self.images = list(load_instances(request.data))
        self.predictions: Predictions = {}
        if request.predictions is not None:
            self.predictions = read_predictions(request.predictions, self.images)
            return key_of({"task": "sis"}, [request.data, request.predictions])
        return _model_key(request, [request.data, *(image.image for image in self.images)])

    def evaluate(self) -> Evaluation:
        from saliency_r1.evaluation.instance_metrics import evaluate_instances
        from saliency_r1.evaluation.predicting import SCORE, predict_instances

        words = None
        if self.request.predictions is None:
            self.predictions, words = predict_instances(
                self.load(),
                self.images,
                self.workspace.predictions,
                reasoning=self.request.reasoning,
                on_error=_left_out if self.request.missing == "empty" else None,
                progress=lambda done, total: self.progress("predicting", done, total),
            )
        note = SCORE if self.request.predictions is None else GIVEN_SCORE
        notes = [note.rstrip(".")]
        if words is not None and (unanswered := len(self.images) - len(words)):
            notes.append(
                f"{unanswered} of {len(self.images)} photos got no answer and count as photos where nothing "
                "was found (--missing empty)"
            )
        return evaluate_instances(self.images, self.predictions, words, notes)

    def pictures_of(self, name: str) -> list[Captioned]:
        image = next(image for image in self.images if image.name == name)
        return instance_pictures_of(image, {"prediction": self.predictions.get(image.key, [])})

    def more_outputs(self) -> dict[str, bytes]:
        from saliency_r1.evaluation.predicting import coco_results

        return {"predictions.json": coco_results(self.predictions)}


def instance_pictures_of(
    image: InstanceImage, predictions: dict[str, list[PredictedInstance]]
) -> list[Captioned]:
    """Return the pictures of a SIS photo, with any number of methods' predictions by caption."""
    return instance_pictures(
        image.image,
        [one.mask for one in image.instances],
        {caption: [one.mask for one in found] for caption, found in predictions.items()},
    )


def _left_out(source: object, error: ImageError) -> None:
    """Continue after a policy's server refused a photo: it has no prediction, and all outputs say so."""
    if not isinstance(error, EndpointError):
        raise error


def _model_key(request: Request, files: list[Path | None]) -> str:
    options = {
        "task": str(request.task),
        "model": request.model,
        "reasoning": request.reasoning,
        "split": request.split,
        "group_images": request.group_images,
        **request.reading.options(),
        # A longer wait changes no answer.
        "asked": asdict(replace(request.asked, timeout=PolicyOptions().timeout)),
    }
    return key_of(options, files)
