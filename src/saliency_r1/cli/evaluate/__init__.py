"""`saliency-r1 evaluate`: score a model, or given predictions, on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saliency_r1.catalogue import NANO
from saliency_r1.cli.evaluate.table import table
from saliency_r1.cli.options import (
    DeviceOption,
    FastOption,
    GroupImagesOption,
    PolicyFlags,
    RuntimeOption,
    SegmenterOption,
    Split,
    spread,
)
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.runtime import Runtime
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.evaluation.runner import Request
    from saliency_r1.pipeline import SaliencyPipeline

app = typer.Typer(no_args_is_help=True, help="Score a model or given predictions on a data set.")

app.command()(table)


Missing = Literal["error", "empty"]
"""The action if a prediction cannot be scored."""

Values = Literal["grey", "nonzero", "alpha"]
"""The values of a mask or prediction that mean the object."""


def _predictions(metavar: str, what: str) -> Any:
    """Return the option of the predictions to score, one path for each data set."""
    return typer.Option(metavar=metavar, help=f"{what} {{set}} stands for the data set's name.")


@dataclass(frozen=True)
class RunOptions:
    """The options of what is evaluated, and of the folder of the run."""

    data: Annotated[
        list[Path],
        typer.Option(metavar="FOLDER", help="The data set, in any known layout. Repeat it for several sets."),
    ]
    model: Annotated[
        str | None,
        typer.Option(
            metavar="nano|FOLDER|HUB|openai:URL#MODEL",
            help="The policy to evaluate. nano is the embedded one.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The run's folder; for several sets that of their runs. Default: runs/<data>-<method>.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished run.")] = False
    fast: FastOption = False
    segmenter: SegmenterOption = None
    device: DeviceOption = "auto"
    runtime: RuntimeOption = Runtime.AUTO
    price_in: Annotated[
        float, typer.Option(min=0, help="Price per million prompt tokens of an endpoint, for the summary.")
    ] = 0.0
    price_out: Annotated[float, typer.Option(min=0, help="Price per million completion tokens.")] = 0.0


@dataclass(frozen=True)
class MapOptions:
    """The options of maps: where they are, and how their pixels and those of the masks are read."""

    predictions: Annotated[
        Path | None, _predictions("FOLDER", "Folder of maps to score, named like the photos.")
    ] = None
    missing: Annotated[
        Missing, typer.Option(help="What to do if a prediction is missing, unreadable or of a wrong size.")
    ] = "error"
    mask_values: Annotated[
        Values | None,
        typer.Option(
            help="Which values of a mask mean the object. Default: grey (above 127), stop if in doubt."
        ),
    ] = None
    prediction_values: Annotated[
        Values | None, typer.Option(help="The same for predictions. Default: grey, from 0 to 255.")
    ] = None
    resize_predictions: Annotated[
        bool,
        typer.Option("--resize-predictions", help="Resize predictions to the size of their masks."),
    ] = False
    workers: Annotated[
        int | None, typer.Option(min=0, help="Number of processes. Default: one for each core, at most 8.")
    ] = None

    def for_request(self) -> dict[str, Any]:
        """Return what a `Request` takes of them."""
        from saliency_r1.data.mask_files import MaskValues
        from saliency_r1.evaluation.reading import Reading
        from saliency_r1.workers import default_workers

        masks, predictions = (
            None if each is None else MaskValues(each) for each in (self.mask_values, self.prediction_values)
        )
        return {
            "predictions": self.predictions,
            "missing": self.missing,
            "reading": Reading(masks, predictions, self.resize_predictions),
            "workers": default_workers() if self.workers is None else self.workers,
        }


@app.command()
@spread
def sod(
    *,
    run: RunOptions,
    maps: MapOptions,
    split: Annotated[
        Split | None,
        typer.Option(
            help="Evaluate one split. DUTS-TR (--data is the DUTS folder) holds out 500, others a tenth."
        ),
    ] = None,
    asked: PolicyFlags,
) -> None:
    """Salient object detection: a mask for each photo."""
    _evaluate(Task.SOD, run, asked, split=split, **maps.for_request())


@app.command()
@spread
def cosod(
    *,
    run: RunOptions,
    maps: MapOptions,
    group_images: GroupImagesOption = GROUP_IMAGES,
    asked: PolicyFlags,
) -> None:
    """Co-salient object detection: in each photo of a group, a mask of what the group shares."""
    _evaluate(Task.COSOD, run, asked, group_images=group_images, **maps.for_request())


@app.command()
@spread
def sis(
    *,
    run: RunOptions,
    predictions: Annotated[
        Path | None, _predictions("JSON", "A COCO result file: image_id, segmentation, score.")
    ] = None,
    missing: Annotated[
        Missing, typer.Option(help="If the model gives no answer to a photo: stop, or score it as empty.")
    ] = "error",
    asked: PolicyFlags,
) -> None:
    """Salient instance segmentation: a mask and a score for each salient instance."""
    _evaluate(Task.SIS, run, asked, predictions=predictions, missing=missing, workers=0)


def _evaluate(
    task: Task, run: RunOptions, asked: PolicyFlags, *, predictions: Path | None, **others: Any
) -> None:
    import shlex
    import sys
    from functools import cache

    from rich.console import Console

    from saliency_r1.cli.evaluate.run import evaluate_request
    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation.runner import Request

    if (run.model is None) == (predictions is None):
        raise SaliencyError("give either --model or --predictions")
    if predictions is not None and len(run.data) > 1 and "{set}" not in str(predictions):
        raise SaliencyError(
            f"--predictions {predictions}: is one path for {len(run.data)} data sets; write {{set}} where "
            "the name of the data set's folder stands"
        )
    name = run.model
    if name is not None and run.segmenter is not None:
        name = f"{name} + {run.segmenter}"
    asking = Request(
        task=task,
        data=run.data[0],
        out=run.out or Path("runs"),
        predictions=predictions,
        model=name,
        reasoning=not run.fast,
        overwrite=run.overwrite,
        command=shlex.join(["saliency-r1", *sys.argv[1:]]),
        prices=(run.price_in, run.price_out),
        asked=asked,
        **others,
    )
    requests = [_of_set(asking, data, run.out, several=len(run.data) > 1) for data in run.data]
    folders = [one.out for one in requests]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise SaliencyError(f"{twice}: would be the run of two data sets; evaluate them one by one")

    @cache
    def load_model() -> SaliencyPipeline:
        from saliency_r1.cli.models import load_pipeline

        model = None if run.model == NANO else run.model
        return load_pipeline(model, run.segmenter, run.device, asked, runtime=run.runtime)

    for request in requests:
        evaluate_request(request, load_model, Console(stderr=True, highlight=False, markup=False))


def _of_set(asking: Request, data: Path, out: Path | None, *, several: bool) -> Request:
    """Return the request for one data set, with its predictions and the folder of its run."""
    from dataclasses import replace

    request = replace(asking, data=data)
    if request.predictions is not None:
        filled = str(request.predictions).replace("{set}", request.data_name)
        request = replace(request, predictions=Path(filled))
    if out is None:
        return request.with_default_out()
    return replace(request, out=out / request.data_name if several else out)
