"""The files of a finished run: summary.json, per_image.csv, row.md, row.tex."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from saliency_r1.data.benchmarks import find_benchmark
from saliency_r1.data.groups import group_of
from saliency_r1.evaluation.calibration import Calibration, calibrate
from saliency_r1.evaluation.evaluation import Evaluation, answers_of
from saliency_r1.tasks import Task

TITLES = {
    "mae": "MAE",
    "s_measure": "S",
    "weighted_f": "wF",
    "max_f": "max F",
    "mean_f": "mean F",
    "adaptive_f": "adp F",
    "max_e": "max E",
    "mean_e": "mean E",
    "adaptive_e": "adp E",
    "iou": "IoU",
    "iou_stretched": "IoU (stretched)",
    "boundary_iou": "boundary IoU",
    "ap": "AP",
    "ap50": "AP50",
    "ap70": "AP70",
    "ar": "AR",
}
"""The names of the metrics in tables."""

_MAPS = {
    "mae": "mean absolute error of the min-max stretched prediction (pysodmetrics MAE)",
    "s_measure": "structure-measure, alpha 0.5 (pysodmetrics Smeasure)",
    "weighted_f": "weighted F-measure, beta² 1 (pysodmetrics WeightedFmeasure)",
    "max_f": "largest value of the photos' mean F curve, beta² 0.3 (pysodmetrics FmeasureV2)",
    "mean_f": "mean of that curve over the 256 thresholds",
    "adaptive_f": "F at twice the mean of each stretched prediction",
    "max_e": "largest value of the photos' mean enhanced-alignment curve (pysodmetrics Emeasure)",
    "mean_e": "mean of that curve over the 256 thresholds",
    "adaptive_e": "E at twice the mean of each stretched prediction",
    "iou": "mean IoU of the prediction as it is, from half on (128 of 255); 1 where both masks are empty",
    "iou_stretched": "mean IoU above half of the stretched prediction (pysodmetrics IOUHandler)",
    "boundary_iou": "mean IoU of the masks' boundaries, .02 of the diagonal wide, from half on; 1 where "
    "both masks are empty (Cheng et al., CVPR 2021)",
}
_INSTANCES = {
    "ap": "class-agnostic mask AP, mean over IoU .50:.05:.95, at most 100 predictions a photo (pycocotools)",
    "ap50": "the same at IoU .50",
    "ap70": "the same at IoU .70",
    "ar": "recall with at most 100 predictions a photo, mean over IoU .50:.05:.95",
    "iou": "mean IoU of the union of all predicted and the union of all true instances",
}


def definitions(task: Task) -> dict[str, str]:
    """Return a line that defines each metric of a task."""
    return _INSTANCES if task is Task.SIS else _MAPS


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run.

    Attributes:
        data: path of the data as given.
        data_name: the name of the data in tables.
        method: the name of the method in tables.
        predictions: folder or file that was given; None for a model.
        model: policy and segmenter, for a model.
        reasoning: whether the model reasoned; None for predictions.
        split: the split of the data, if one was asked for.
        missing: `error` or `empty`.
        command: the command line.
        seconds: duration of this start alone.
        prices: prices per million prompt and completion tokens of an endpoint, in any currency.
    """

    data: Path
    data_name: str
    method: str
    predictions: Path | None
    model: str | None
    reasoning: bool | None
    split: str | None
    missing: str
    command: str
    seconds: float
    prices: tuple[float, float] = (0.0, 0.0)


def calibration_of(evaluation: Evaluation) -> Calibration | None:
    """Confidence against IoU over the photos that have a confidence; None if none has."""
    known = [
        (row.words.confidence, row.values["iou"])
        for row in evaluation.rows
        if row.words is not None and row.words.confidence is not None
    ]
    if not known:
        return None
    confidence, iou = np.array(known).T
    return calibrate(confidence, iou)


def warnings(evaluation: Evaluation, facts: RunFacts) -> list[str]:
    """Return what must be said wherever the numbers are shown."""
    said = []
    if evaluation.problems:
        said.append(
            f"{len(evaluation.problems)} of {len(evaluation.rows)} predictions were missing, unreadable or "
            "of a wrong size and were scored as empty masks (--missing empty)"
        )
    if evaluation.extra:
        said.append(f"{len(evaluation.extra)} extra predictions of no photo were left aside")
    answers = answers_of(evaluation, facts.prices)
    if answers and answers["unparsed"]:
        said.append(
            f"{answers['unparsed']} of {answers['questions']} responses did not parse and were read leniently"
        )
    benchmark = find_benchmark(facts.data_name)
    if benchmark is not None and facts.split is None and benchmark.task is evaluation.task:
        photos = len(evaluation.rows)
        if benchmark.part_of(photos) is None:
            said.append(f"{photos:,} photos, but {benchmark.name} has {benchmark.expected}")
    return [*said, *evaluation.notes]


def summary(evaluation: Evaluation, facts: RunFacts) -> bytes:
    """The content of summary.json."""
    calibration = calibration_of(evaluation)
    benchmark = find_benchmark(facts.data_name)
    content: dict[str, Any] = {
        "task": evaluation.task.value,
        "data": {
            "name": facts.data_name,
            "path": str(facts.data.absolute()),
            "split": facts.split,
            "fingerprint": f"sha256:{evaluation.fingerprint}",
            "expected": benchmark.expected if benchmark else None,
        },
        "method": {
            "name": facts.method,
            "predictions": str(facts.predictions.absolute()) if facts.predictions else "predictions",
            "model": facts.model,
            "reasoning": facts.reasoning,
        },
        "metrics": evaluation.metrics,
        "definitions": definitions(evaluation.task),
        "counts": evaluation.counts
        | {"scored as empty": len(evaluation.problems), "extra predictions": len(evaluation.extra)},
        "missing": facts.missing,
        "scored_as_empty": {problem.name: problem.reason for problem in evaluation.problems},
        "extra_predictions": list(evaluation.extra),
        "notes": warnings(evaluation, facts),
        "groups": evaluation.groups,
        "curves": _curves(evaluation),
        "calibration": calibration.to_dict() if calibration else None,
        "answers": answers_of(evaluation, facts.prices),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("saliency-r1", "pysodmetrics", "pycocotools", "numpy", "pillow")
            },
        },
        "command": facts.command,
        "seconds": round(facts.seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(content, indent=1, allow_nan=False).encode()


def _curves(evaluation: Evaluation) -> dict[str, list[float]]:
    if evaluation.result is None:
        return {}
    names = ("precision", "recall", "f_curve", "e_curve")
    return {name: [round(value, 6) for value in getattr(evaluation.result, name).tolist()] for name in names}


def per_image_csv(evaluation: Evaluation, moved: dict[Path, Path]) -> bytes:
    """The content of per_image.csv.

    Args:
        evaluation: an evaluation with its rows.
        moved: the later place of a folder of predictions, by its present place.
    """
    metrics = list(evaluation.rows[0].values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "name",
            "group",
            *metrics,
            "confidence",
            "expressions",
            "scored_as_empty",
            "image",
            "truth",
            "prediction",
        ]
    )
    for row in evaluation.rows:
        words = row.words
        prediction = row.prediction
        for before, after in moved.items():
            if prediction is not None and prediction.is_relative_to(before):
                prediction = after / prediction.relative_to(before)
        writer.writerow(
            [
                row.name,
                group_of(row.name),
                *("" if math.isnan(row.values[name]) else f"{row.values[name]:.9g}" for name in metrics),
                "" if words is None or words.confidence is None else f"{words.confidence:.6g}",
                "" if words is None else "; ".join(words.expressions),
                row.problem or "",
                *(
                    "" if path is None else str(path.absolute())
                    for path in (row.image, row.truth, prediction)
                ),
            ]
        )
    return text.getvalue().encode()


def shown(value: float | None) -> str:
    """A metric as tables write it."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".removeprefix("0")


def markdown_row(evaluation: Evaluation, facts: RunFacts) -> bytes:
    """The content of row.md: a table of one row."""
    titles = [TITLES[name] for name in evaluation.metrics]
    cells = [shown(value) for value in evaluation.metrics.values()]
    lines = [
        "| " + " | ".join(["data", "method", "photos", *titles]) + " |",
        "|---" * 2 + "|--:" * (len(titles) + 1) + "|",
        "| " + " | ".join([facts.data_name, facts.method, str(len(evaluation.rows)), *cells]) + " |",
        *(f"\n{note}." for note in warnings(evaluation, facts)),
    ]
    return ("\n".join(lines) + "\n").encode()


def latex_row(evaluation: Evaluation, facts: RunFacts) -> bytes:
    """The content of row.tex: one row of a booktabs table, its columns named in a comment."""
    titles = [TITLES[name] for name in evaluation.metrics]
    cells = [shown(value).replace("–", "--") for value in evaluation.metrics.values()]
    lines = [
        *(f"% {note}" for note in warnings(evaluation, facts)),
        "% " + " & ".join(["method", "data", *titles]),
        " & ".join([latex_text(facts.method), latex_text(facts.data_name), *cells]) + r" \\",
    ]
    return ("\n".join(lines) + "\n").encode()


def latex_text(text: str) -> str:
    """A text as LaTeX takes it."""
    return "".join(f"\\{sign}" if sign in "&%$#_{}" else sign for sign in text.replace("\\", "/"))
