"""Compare runs, paired by photo: differences, bootstrap intervals, wins and losses, cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from saliency_r1.data.folders import listed
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.attributes import Split
from saliency_r1.evaluation.evaluation import Row, Words
from saliency_r1.evaluation.outputs import TITLES, shown
from saliency_r1.evaluation.report.charts import line_chart
from saliency_r1.evaluation.report.page import page, table
from saliency_r1.evaluation.report.pictures import Captioned, figure, map_pictures
from saliency_r1.evaluation.sod_scores import LOWER_IS_BETTER, THRESHOLDS
from saliency_r1.evaluation.workspace import SUMMARY
from saliency_r1.tasks import Task

Runs: TypeAlias = "Mapping[tuple[str, str], Run]"
"""Finished runs by method and set."""
Differences: TypeAlias = "dict[tuple[str, str], list[Difference]]"
"""Differences from the first method of the set, by method and set."""
PValues: TypeAlias = Mapping[tuple[str, str, str], float]
"""P-values by method, set and metric."""

RESAMPLES = 2000
CASES = 12
SAME = 1e-9
"""Values closer than this are a tie."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run's folder.
        summary: its summary.json.
        rows: its photos by name.
    """

    folder: Path
    summary: dict[str, Any]
    rows: dict[str, Row]

    @property
    def method(self) -> str:
        """The name in tables."""
        return str(self.summary["method"]["name"])


@dataclass(frozen=True)
class Difference:
    """One metric of two runs, over the photos where both have it.

    Attributes:
        metric: its name.
        first, second: mean over the photos in each run.
        low, high: the 95 % interval of second minus first.
        wins, losses, ties: numbers of photos where the second is better, worse or equal.
    """

    metric: str
    first: float
    second: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int

    @property
    def difference(self) -> float:
        """The difference, second minus first."""
        return self.second - self.first

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def load_run(folder: str | Path) -> Run:
    """Read a finished run.

    Raises:
        SaliencyError: if there is no finished run, or its files are broken.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        unfinished = (
            " (it is unfinished: the same evaluate command continues it)"
            if (folder / ".unfinished").exists()
            else ""
        )
        raise SaliencyError(
            f"{folder}: no finished run, expected {SUMMARY} of `saliency-r1 evaluate`{unfinished}"
        )
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
        metrics = list(summary["definitions"])
        str(summary["method"]["name"]), str(summary["data"]["fingerprint"]), Task(summary["task"])
        with (folder / "per_image.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = {line["name"]: _row(line, metrics) for line in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaliencyError(f"{folder}: not a run of `saliency-r1 evaluate` ({error!r})") from error
    return Run(folder, summary, rows)


def _row(line: dict[str, str], metrics: Sequence[str]) -> Row:
    paths = {key: Path(line[key]) if line[key] else None for key in ("image", "truth", "prediction")}
    return Row(
        line["name"],
        {name: float(line[name]) if line.get(name) else np.nan for name in metrics if name in line},
        image=paths["image"],
        truth=paths["truth"],
        prediction=paths["prediction"],
        words=Words(tuple(line["expressions"].split("; "))) if line["expressions"] else None,
        problem=line["scored_as_empty"] or None,
    )


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that all runs have one task, the same photos and the same ground truth.

    Raises:
        SaliencyError: if something differs; the message names it.
    """
    first = runs[0]
    for other in runs[1:]:
        if other.summary["task"] != first.summary["task"]:
            raise SaliencyError(
                f"{first.folder} is of {first.summary['task']}, {other.folder} of {other.summary['task']}: "
                "runs of different tasks cannot be paired"
            )
        if other.rows.keys() != first.rows.keys():
            differing = other.rows.keys() ^ first.rows.keys()
            raise SaliencyError(
                f"{first.folder} and {other.folder} are not of the same photos: {len(differing)} are in "
                f"one alone, {listed(differing)}"
            )
        if other.summary["data"]["fingerprint"] != first.summary["data"]["fingerprint"]:
            raise SaliencyError(
                f"{first.folder} and {other.folder} were scored against different ground truth (their "
                "fingerprints differ): evaluate both on the same data"
            )


def compare(
    first: Run | str | Path, second: Run | str | Path, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Compute the difference of two runs in each metric, paired by photo.

    The values are means over the photos. `max_f` is the mean of each photo's largest F, and `ap` the mean of
    each photo's AP; they differ from the numbers of the set in summary.json, which cannot be paired.

    Args:
        first: a finished run, or its folder.
        second: another one of the same photos, or its folder.
        resamples: number of resamples of the photos, with replacement (percentile bootstrap).
        seed: random seed of the resamples.

    Raises:
        SaliencyError: if a folder holds no finished run, or the two differ in task, photos or ground truth.
    """
    first, second = (one if isinstance(one, Run) else load_run(one) for one in (first, second))
    check_comparable([first, second])
    names = sorted(first.rows)
    metrics = [name for name in first.rows[names[0]].values if name in TITLES]
    values = [
        np.array([[run.rows[name].values.get(metric, np.nan) for metric in metrics] for name in names])
        for run in (first, second)
    ]
    delta = values[1] - values[0]
    defined = np.isfinite(delta)
    low, high = _interval(np.where(defined, delta, 0.0), defined, resamples, seed)
    result = []
    for column, metric in enumerate(metrics):
        used = defined[:, column]
        if not used.any():
            continue
        better = delta[used, column] * (-1 if metric in LOWER_IS_BETTER else 1)
        wins, losses = int((better > SAME).sum()), int((better < -SAME).sum())
        result.append(
            Difference(
                metric,
                float(values[0][used, column].mean()),
                float(values[1][used, column].mean()),
                float(low[column]),
                float(high[column]),
                wins,
                losses,
                int(used.sum()) - wins - losses,
            )
        )
    return result


def _interval(
    delta: np.ndarray, defined: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5 and 97.5 % quantiles of each column's resampled means, over the defined entries."""
    generator = np.random.default_rng(seed)
    photos = len(delta)
    means = np.full((resamples, delta.shape[1]), np.nan)
    for start in range(0, resamples, 100):
        rows = means[start : start + 100]
        counts = generator.multinomial(photos, np.full(photos, 1 / photos), size=len(rows)).astype(np.float64)
        number = counts @ defined
        np.divide(counts @ delta, number, out=rows, where=number > 0)
    low, high = np.nanpercentile(means, (2.5, 97.5), axis=0)
    return low, high


def differences(runs: Runs) -> Differences:
    """Compare each run with the first one of its set, by method and set.

    Args:
        runs: runs by method and set; those of a set are comparable.
    """
    found: Differences = {}
    first: dict[str, Run] = {}
    for (method, data), run in runs.items():
        if data in first:
            found[method, data] = compare(first[data], run)
        else:
            first[data] = run
    return found


def sets_of(runs: Runs) -> dict[str, dict[str, Run]]:
    """Return the runs by set, then by method."""
    sets: dict[str, dict[str, Run]] = {}
    for (method, data), run in runs.items():
        sets.setdefault(data, {})[method] = run
    return sets


def comparison_dict(runs: Runs, found: Differences, p_values: PValues) -> dict[str, Any]:
    """Return all of it, for JSON."""
    return {
        "task": next(iter(runs.values())).summary["task"],
        "resamples": RESAMPLES,
        "sets": [
            {
                "set": data,
                "data": next(iter(of_set.values())).summary["data"],
                "photos": len(next(iter(of_set.values())).rows),
                "runs": [
                    {
                        "folder": str(run.folder.absolute()),
                        "method": method,
                        "metrics": run.summary["metrics"],
                    }
                    for method, run in of_set.items()
                ],
                "against_the_first": {
                    method: [
                        vars(one)
                        | {"difference": one.difference, "p_value": p_values.get((method, data, one.metric))}
                        for one in found[method, data]
                    ]
                    for method in of_set
                    if (method, data) in found
                },
            }
            for data, of_set in sets_of(runs).items()
        ],
    }


def difference_rows(found: Sequence[Difference], p_values: Mapping[str, float]) -> list[list[str]]:
    """Return the cells of a table with a row for each metric; p-values are by metric."""
    return [
        [
            TITLES[one.metric],
            shown(one.first),
            shown(one.second),
            shown_difference(one.difference),
            f"[{shown_difference(one.low)}, {shown_difference(one.high)}]"
            + ("" if one.sure else " (holds 0)"),
            shown_p(p_values[one.metric]) if one.metric in p_values else "–",
            f"{one.wins} / {one.losses} / {one.ties}",
        ]
        for one in found
    ]


DIFFERENCE_TITLES = (
    "metric",
    "first",
    "second",
    "difference",
    "95 % interval",
    "p (Holm)",
    "wins / losses / ties",
)


def shown_difference(value: float) -> str:
    """Return a difference as tables write it, with its sign."""
    return f"{value:+.4f}".replace("0.", ".", 1) if abs(value) < 0.99995 else f"{value:+.4f}"


def shown_p(value: float) -> str:
    """Return a p-value as tables write it."""
    return "< .0001" if value < 1e-4 else f"{value:.4f}".removeprefix("0")


def comparison_report(runs: Runs, found: Differences, p_values: PValues, splits: Sequence[Split]) -> bytes:
    """Return a self-contained HTML page: tables, differences, and the photos that differ most."""
    parts = []
    for data, of_set in sets_of(runs).items():
        parts += _set_report(data, of_set, found, p_values)
        if of_data := [split for split in splits if split.data == data]:
            parts += ["<h2>By attribute</h2>", _splits_table(of_data)]
    return page("Comparison", parts)


def _set_report(data: str, runs: Mapping[str, Run], found: Differences, p_values: PValues) -> list[str]:
    base, first = next(iter(runs.items()))
    metric = "iou" if first.summary["task"] == Task.SIS else "s_measure"
    metrics = list(first.summary["metrics"])
    parts = [
        f"<h1>{len(runs)} runs on {escape(data)}</h1>",
        table(
            ["method", *(TITLES[name] for name in metrics)],
            [
                [method, *(shown(run.summary["metrics"].get(name, np.nan)) for name in metrics)]
                for method, run in runs.items()
            ],
        ),
        *(
            f'<p class="warn">{escape(method)}: {escape(note)}.</p>'
            for method, run in runs.items()
            for note in run.summary["notes"]
        ),
    ]
    if first.summary["curves"]:
        parts.append(f'<div class="charts">{"".join(_charts(list(runs.values())))}</div>')
    for method, run in list(runs.items())[1:]:
        of_pair = {name: p for (one, of, name), p in p_values.items() if (one, of) == (method, data)}
        parts += [
            f"<h2>{escape(method)} against {escape(base)}, photo by photo</h2>",
            '<p class="faded">Means over the photos of each photo\'s own value; second minus first; '
            f"bootstrap over the photos, {RESAMPLES:,} resamples. p: two-sided Wilcoxon signed-rank test, "
            f"corrected by Holm's method for all {len(p_values)} tests of this comparison.</p>",
            table(DIFFERENCE_TITLES, difference_rows(found[method, data], of_pair)),
            f"<h2>Where they differ most, by {TITLES[metric]}</h2>",
            _cases(first, run, metric),
        ]
    return parts


def _splits_table(splits: Sequence[Split]) -> str:
    metrics = list(dict.fromkeys(metric for split in splits for _, metric in split.means))
    rows = [
        [
            f"{split.attribute} = {split.value}",
            str(split.photos),
            method,
            *(shown(split.means[method, metric]) for metric in metrics),
        ]
        for split in splits
        for method in dict.fromkeys(method for method, _ in split.means)
    ]
    return table(["attribute", "photos", "method", *(TITLES[metric] for metric in metrics)], rows)


def _charts(runs: Sequence[Run]) -> list[str]:
    curves = {f"{number}. {run.method}": run.summary["curves"] for number, run in enumerate(runs, 1)}
    thresholds = (THRESHOLDS / 255).tolist()
    return [
        line_chart(
            "Precision and recall",
            "recall",
            "precision",
            {name: (one["recall"], one["precision"]) for name, one in curves.items()},
        ),
        line_chart(
            "F-measure",
            "threshold",
            "F",
            {name: (thresholds, one["f_curve"]) for name, one in curves.items()},
        ),
    ]


def _cases(first: Run, second: Run, metric: str) -> str:
    delta = {name: second.rows[name].values[metric] - row.values[metric] for name, row in first.rows.items()}
    names = sorted(
        (name for name, value in delta.items() if np.isfinite(value) and abs(value) > SAME),
        key=lambda name: (-abs(delta[name]), name),
    )[:CASES]
    pictures = _instance_pictures(first, second) if metric == "iou" else None
    cases = []
    for name in names:
        rows = first.rows[name], second.rows[name]
        captions = [
            f"{run.method} {shown(row.values[metric])}"
            for run, row in zip((first, second), rows, strict=True)
        ]
        shown_pictures = (
            pictures(name, captions)
            if pictures
            else map_pictures(
                rows[0].image,
                rows[0].truth,
                dict(zip(_distinct(captions), (row.prediction for row in rows), strict=True)),
            )
        )
        figures = "".join(figure(caption, image) for caption, image in shown_pictures)
        words = "".join(
            f'<p class="faded">{escape(run.method)}: {escape("; ".join(row.words.expressions))}</p>'
            for run, row in zip((first, second), rows, strict=True)
            if row.words
        )
        cases.append(
            f'<div class="case"><p><b>{escape(name)}</b> {shown_difference(delta[name])}</p>'
            f'<div class="row">{figures}</div>{words}</div>'
        )
    return f'<div class="cases">{"".join(cases)}</div>'


def _distinct(captions: Sequence[str]) -> list[str]:
    return [f"{number}. {caption}" for number, caption in enumerate(captions, 1)]


def _instance_pictures(first: Run, second: Run) -> Callable[[str, Sequence[str]], list[Captioned]]:
    """Return pictures of SIS runs, from the data and the predictions.json of each run."""
    from saliency_r1.data.layouts import load_instances
    from saliency_r1.evaluation.instance_metrics import read_predictions
    from saliency_r1.evaluation.runner import instance_pictures_of

    try:
        images = list(load_instances(first.summary["data"]["path"]))
        found = [read_predictions(run.folder / "predictions.json", images) for run in (first, second)]
    except SaliencyError:  # the data were moved: show the numbers without pictures
        return lambda name, captions: []
    by_name = {image.name: image for image in images}

    def pictures(name: str, captions: Sequence[str]) -> list[Captioned]:
        image = by_name[name]
        masks = [predictions.get(image.key, []) for predictions in found]
        return instance_pictures_of(image, dict(zip(_distinct(captions), masks, strict=True)))

    return pictures
