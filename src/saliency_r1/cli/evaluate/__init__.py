"""`saliency-r1 evaluate`: score a model, or given predictions, on a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.catalogue import NANO
from saliency_r1.cli.evaluate.table import table
from saliency_r1.cli.options import (
    DeviceOption,
    DtypeOption,
    FastOption,
    GroupImagesOption,
    MaxNewTokensOption,
    MaxPixelsOption,
    PromptingOption,
    SegmenterOption,
    Split,
    StructuredOption,
    TimeoutOption,
)
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.policy.options import TIMEOUT_SECONDS, PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.evaluation.runner import Request
    from saliency_r1.pipeline import SaliencyPipeline

app = typer.Typer(no_args_is_help=True, help="Score a model or given predictions on a data set.")

app.command()(table)


class Missing(StrEnum):
    """The action if a prediction cannot be scored."""

    ERROR = "error"
    EMPTY = "empty"


DataOption = Annotated[Path, typer.Option(metavar="FOLDER", help="The data set, in any known layout.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="nano|FOLDER|HUB|openai:URL#MODEL", help="The policy to evaluate. nano is the embedded one."
    ),
]
PredictionsOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder of maps to score, named like the photos.")
]
OutOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The run's folder. Default: runs/<data>-<method>.")
]
MissingOption = Annotated[
    Missing, typer.Option(help="What to do if a prediction is missing, unreadable or of a wrong size.")
]


class Values(StrEnum):
    """The values of a mask or prediction that mean the object."""

    GREY = "grey"
    NONZERO = "nonzero"
    ALPHA = "alpha"


MaskValuesOption = Annotated[
    Values | None,
    typer.Option(help="Which values of a mask mean the object. Default: grey (above 127), stop if in doubt."),
]
PredictionValuesOption = Annotated[
    Values | None, typer.Option(help="The same for predictions. Default: grey, from 0 to 255.")
]
ResizeOption = Annotated[
    bool,
    typer.Option("--resize-predictions", help="Resize predictions to the size of their masks."),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Number of processes. Default: one for each core, at most 8.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a finished run.")]
PriceInOption = Annotated[
    float, typer.Option(min=0, help="Price per million prompt tokens of an endpoint, for the summary.")
]
PriceOutOption = Annotated[float, typer.Option(min=0, help="Price per million completion tokens.")]


@app.command()
def sod(
    data: DataOption,
    model: ModelOption = None,
    predictions: PredictionsOption = None,
    out: OutOption = None,
    split: Annotated[
        Split | None,
        typer.Option(
            help="Evaluate one split. DUTS-TR (--data is the DUTS folder) holds out 500, others a tenth."
        ),
    ] = None,
    missing: MissingOption = Missing.ERROR,
    mask_values: MaskValuesOption = None,
    prediction_values: PredictionValuesOption = None,
    resize_predictions: ResizeOption = False,
    workers: WorkersOption = None,
    overwrite: OverwriteOption = False,
    fast: FastOption = False,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    max_pixels: MaxPixelsOption = None,
    prompting: PromptingOption = Prompting.AUTO,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    max_new_tokens: MaxNewTokensOption = None,
    structured: StructuredOption = False,
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
) -> None:
    """Salient object detection: a mask for each photo."""
    asked = PolicyOptions(
        dtype=dtype,
        max_pixels=max_pixels,
        prompting=prompting,
        timeout=timeout,
        max_new_tokens=max_new_tokens,
        structured=structured,
    )
    values = mask_values, prediction_values, resize_predictions
    _run(
        Task.SOD,
        data,
        model,
        predictions,
        out,
        split,
        missing,
        workers,
        overwrite,
        fast,
        segmenter,
        device,
        asked,
        (price_in, price_out),
        values=values,
    )


@app.command()
def cosod(
    data: DataOption,
    model: ModelOption = None,
    predictions: PredictionsOption = None,
    out: OutOption = None,
    missing: MissingOption = Missing.ERROR,
    mask_values: MaskValuesOption = None,
    prediction_values: PredictionValuesOption = None,
    resize_predictions: ResizeOption = False,
    workers: WorkersOption = None,
    overwrite: OverwriteOption = False,
    fast: FastOption = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    max_pixels: MaxPixelsOption = None,
    prompting: PromptingOption = Prompting.AUTO,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    max_new_tokens: MaxNewTokensOption = None,
    structured: StructuredOption = False,
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
) -> None:
    """Co-salient object detection: in each photo of a group, a mask of what the group shares."""
    asked = PolicyOptions(
        dtype=dtype,
        max_pixels=max_pixels,
        prompting=prompting,
        timeout=timeout,
        max_new_tokens=max_new_tokens,
        structured=structured,
    )
    _run(
        Task.COSOD,
        data,
        model,
        predictions,
        out,
        None,
        missing,
        workers,
        overwrite,
        fast,
        segmenter,
        device,
        asked,
        (price_in, price_out),
        group_images,
        (mask_values, prediction_values, resize_predictions),
    )


@app.command()
def sis(
    data: DataOption,
    model: ModelOption = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="JSON", help="A COCO result file: image_id, segmentation, score.")
    ] = None,
    out: OutOption = None,
    missing: Annotated[
        Missing, typer.Option(help="If the model gives no answer to a photo: stop, or score it as empty.")
    ] = Missing.ERROR,
    overwrite: OverwriteOption = False,
    fast: FastOption = False,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    max_pixels: MaxPixelsOption = None,
    prompting: PromptingOption = Prompting.AUTO,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    max_new_tokens: MaxNewTokensOption = None,
    structured: StructuredOption = False,
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
) -> None:
    """Salient instance segmentation: a mask and a score for each salient instance."""
    asked = PolicyOptions(
        dtype=dtype,
        max_pixels=max_pixels,
        prompting=prompting,
        timeout=timeout,
        max_new_tokens=max_new_tokens,
        structured=structured,
    )
    _run(
        Task.SIS,
        data,
        model,
        predictions,
        out,
        None,
        missing,
        0,
        overwrite,
        fast,
        segmenter,
        device,
        asked,
        (price_in, price_out),
    )


def _run(
    task: Task,
    data: Path,
    model: str | None,
    predictions: Path | None,
    out: Path | None,
    split: Split | None,
    missing: Missing,
    workers: int | None,
    overwrite: bool,
    fast: bool,
    segmenter: str | None,
    device: str,
    asked: PolicyOptions,
    prices: tuple[float, float],
    group_images: int = GROUP_IMAGES,
    values: tuple[Values | None, Values | None, bool] = (None, None, False),
) -> None:
    import shlex
    import sys

    from saliency_r1.data.mask_files import MaskValues
    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation.reading import Reading
    from saliency_r1.evaluation.runner import Request
    from saliency_r1.workers import default_workers

    if (model is None) == (predictions is None):
        raise SaliencyError("give either --model or --predictions")
    name = None
    if model is not None:
        name = model if segmenter is None else f"{model} + {segmenter}"
    of_masks, of_predictions = (None if each is None else MaskValues(each) for each in values[:2])
    request = Request(
        task=task,
        data=data,
        out=out or Path("runs"),
        predictions=predictions,
        model=name,
        reasoning=not fast,
        group_images=group_images,
        split=split,
        missing=missing,
        reading=Reading(of_masks, of_predictions, values[2]),
        workers=default_workers() if workers is None else workers,
        overwrite=overwrite,
        command=shlex.join(["saliency-r1", *sys.argv[1:]]),
        prices=prices,
        asked=asked,
    )
    if out is None:
        request = request.with_default_out()
    _evaluate(request, None if model == NANO else model, segmenter, device, asked)


def _evaluate(
    request: Request, policy: str | None, segmenter: str | None, device: str, asked: PolicyOptions
) -> None:
    from rich.console import Console

    from saliency_r1.cli.evaluate.run import evaluate_request

    def load_model() -> SaliencyPipeline:
        from saliency_r1.cli.models import load_pipeline

        return load_pipeline(policy, segmenter, device, asked)

    evaluate_request(request, load_model, Console(stderr=True, highlight=False, markup=False))
