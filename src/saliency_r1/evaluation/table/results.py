"""The table of a paper: methods by sets, out of finished runs, with what is missing named.

task: sod
runs: runs/table                     # a run is runs/table/<set>/<method>
sets:
  ECSSD: DATA/ECSSD
  DUTS-TE: DATA/DUTS-TE
metrics: [mae, s_measure, max_e, weighted_f]
reference: Saliency-R1               # p-values compare with it; default: the last method
methods:
  U2-Net: {predictions: "maps/u2net/{set}"}
  GPT: {model: "openai:http://127.0.0.1:8000/v1#name", segmenter: sam3}
  Saliency-R1: {model: runs/cgpo/policy, segmenter: evf-sam}
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.compare import Run, check_comparable, load_run
from saliency_r1.evaluation.outputs import definitions
from saliency_r1.evaluation.runner import Request
from saliency_r1.evaluation.sod_scores import LOWER_IS_BETTER
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

DEFAULT_METRICS = {
    Task.SOD: ("mae", "s_measure", "max_e", "weighted_f"),
    Task.COSOD: ("mae", "s_measure", "max_e", "max_f"),
    Task.SIS: ("ap", "ap50", "ap70"),
}

SURE = 0.05
"""A difference counts as real if its corrected p-value is below this."""


@dataclass(frozen=True)
class Method:
    """A row of the table; `{set}` in a text is replaced by the name of the set.

    Attributes:
        name: the name in the table.
        model: a policy, as `--model` of `saliency-r1 evaluate` takes it.
        segmenter: the model's segmenter, as `--segmenter` takes it.
        predictions: folder of maps, or JSON file for SIS.
        fast: whether the model answers without reasoning.
        options: settings for loading and asking the policy.
        run: folder of a finished run; None for `<runs>/<set>/<method>`.
    """

    name: str
    model: str | None = None
    segmenter: str | None = None
    predictions: str | None = None
    fast: bool = False
    options: PolicyOptions = field(default_factory=PolicyOptions)
    run: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """The content of a table's YAML.

    Attributes:
        task: the task of all sets.
        sets: path of the data by the set's name, in the order of columns.
        methods: in the order of rows.
        runs: folder of the runs.
        metrics: in the order of columns.
        reference: the method against which the others are tested.
    """

    task: Task
    sets: dict[str, Path]
    methods: tuple[Method, ...]
    runs: Path
    metrics: tuple[str, ...]
    reference: str

    def request(self, method: Method, name: str) -> Request:
        """Return the request that makes the run of a method on a set, with its folder."""

        def filled(text: str | None) -> str | None:
            return None if text is None else text.replace("{set}", name)

        model = method.model if method.segmenter is None else f"{method.model} + {method.segmenter}"
        predictions, run = filled(method.predictions), filled(method.run)
        return Request(
            task=self.task,
            data=self.sets[name],
            out=Path(run) if run else self.runs / _slug(name) / _slug(method.name),
            predictions=None if predictions is None else Path(predictions),
            model=None if method.model is None else model,
            reasoning=not method.fast,
            asked=method.options,
        )


@dataclass(frozen=True)
class MissingCell:
    """A method that has no run on a set.

    Attributes:
        method, data: names of the two.
        reason: why there is none.
        command: the command that makes it; empty if only its author can make it.
    """

    method: str
    data: str
    reason: str
    command: str


@dataclass(frozen=True)
class ResultsTable:
    """The numbers of a table.

    Attributes:
        spec: the table's specification.
        runs: the finished run of each method and set that has one.
        missing: the others.
        p_values: p-value for a method, a set and a metric: two-sided Wilcoxon signed-rank test against the
            reference over the photos, corrected by Holm's method over all of them.
    """

    spec: TableSpec
    runs: dict[tuple[str, str], Run]
    missing: tuple[MissingCell, ...]
    p_values: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def value(self, method: str, data: str, metric: str) -> float | None:
        """Return the metric of a method on a set; None if there is none."""
        run = self.runs.get((method, data))
        value = None if run is None else run.summary["metrics"].get(metric)
        return None if value is None else float(value)

    def best(self, data: str, metric: str) -> set[str]:
        """Return the methods with the best value on a set, at the three digits that tables show."""
        values = {method.name: self.value(method.name, data, metric) for method in self.spec.methods}
        known = {name: round(value, 3) for name, value in values.items() if value is not None}
        if not known:
            return set()
        top = min(known.values()) if metric in LOWER_IS_BETTER else max(known.values())
        return {name for name, value in known.items() if value == top}

    def notes(self) -> list[str]:
        """Return what must be said about the runs."""
        return [
            f"{method} on {data}: {note}"
            for (method, data), run in self.runs.items()
            for note in run.summary["notes"]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        spec = self.spec
        return {
            "task": spec.task.value,
            "metrics": list(spec.metrics),
            "reference": spec.reference,
            "cells": [
                {
                    "method": method.name,
                    "set": data,
                    "run": str(run.folder.absolute()),
                    "photos": len(run.rows),
                    "metrics": {metric: self.value(method.name, data, metric) for metric in spec.metrics},
                    "p_values": {
                        metric: self.p_values[method.name, data, metric]
                        for metric in spec.metrics
                        if (method.name, data, metric) in self.p_values
                    },
                }
                for method in spec.methods
                for data in spec.sets
                if (run := self.runs.get((method.name, data))) is not None
            ],
            "missing": [
                {"method": cell.method, "set": cell.data, "reason": cell.reason, "command": cell.command}
                for cell in self.missing
            ],
            "notes": self.notes(),
        }


def read_spec(content: object, source: str) -> TableSpec:
    """Check a table's YAML.

    Args:
        content: the parsed YAML.
        source: name of the file, at the beginning of error messages.

    Raises:
        SaliencyError: if a key is unknown or missing, or a value is invalid.
    """
    known = {"task", "runs", "sets", "metrics", "reference", "methods"}
    if not isinstance(content, Mapping):
        raise SaliencyError(f"{source}: expected keys and values ({', '.join(sorted(known))})")
    _check_keys(content, known, {"sets", "methods"}, source)
    task = Task.parse(str(content.get("task", "sod")))
    for key in ("sets", "methods"):
        if not isinstance(content[key], Mapping) or not content[key]:
            raise SaliencyError(f"{source}: {key} is {content[key]!r}: expected names and what each is")
    sets = {str(name): Path(str(path)).expanduser() for name, path in content["sets"].items()}
    methods = tuple(_method(str(name), entry, source) for name, entry in content["methods"].items())
    metrics = content.get("metrics") or DEFAULT_METRICS[task]
    if not isinstance(metrics, list | tuple) or not set(metrics) <= definitions(task).keys():
        raise SaliencyError(f"{source}: metrics are {metrics}: choose from {', '.join(definitions(task))}")
    reference = str(content.get("reference") or methods[-1].name)
    if reference not in {method.name for method in methods}:
        raise SaliencyError(f"{source}: reference is {reference!r}: expected the name of a method")
    for names in (list(sets), [method.name for method in methods]):
        slugs = [_slug(name) for name in names]
        twice = next((name for name, slug in zip(names, slugs, strict=True) if slugs.count(slug) > 1), None)
        if twice is not None:
            raise SaliencyError(f"{source}: {twice!r} and another name are one folder; rename one")
    runs = Path(str(content.get("runs", "runs/table"))).expanduser()
    return TableSpec(task, sets, methods, runs, tuple(metrics), reference)


def _method(name: str, entry: object, source: str) -> Method:
    if not isinstance(entry, Mapping):
        raise SaliencyError(f"{source}: method {name!r} is {entry!r}: expected model, predictions or run")
    _check_keys(entry, {one.name for one in fields(Method)} - {"name"}, set(), f"{source}: method {name!r}")
    other = {"fast", "options"}
    texts = {key: None if value is None else str(value) for key, value in entry.items() if key not in other}
    options = _options(entry.get("options") or {}, f"{source}: method {name!r}")
    method = Method(name, fast=bool(entry.get("fast", False)), options=options, **texts)
    ways = [key for key in ("model", "predictions") if getattr(method, key) is not None]
    if len(ways) > 1 or not (ways or method.run):
        raise SaliencyError(f"{source}: method {name!r}: give one of model and predictions, or a run")
    if method.segmenter is not None and method.model is None:
        raise SaliencyError(f"{source}: method {name!r}: a segmenter goes with a model")
    return method


def _options(entry: object, source: str) -> PolicyOptions:
    if not isinstance(entry, Mapping):
        raise SaliencyError(f"{source}: options are {entry!r}: expected names and values")
    _check_keys(entry, {one.name for one in fields(PolicyOptions)}, set(), f"{source}: options")
    return PolicyOptions(**{**entry, "prompting": Prompting.parse(entry.get("prompting", Prompting.AUTO))})


def _check_keys(values: Mapping[Any, Any], known: set[str], required: set[str], source: str) -> None:
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise SaliencyError(f"{source}: unknown key {unknown!r}: known keys are {', '.join(sorted(known))}")
    missing = next((key for key in sorted(required) if key not in values), None)
    if missing is not None:
        raise SaliencyError(f"{source}: the key {missing!r} is missing")


def collect(spec: TableSpec) -> ResultsTable:
    """Collect the table of the finished runs.

    Raises:
        SaliencyError: if a run is broken or has another task, or two runs of one set have different photos
            or ground truth.
    """
    runs: dict[tuple[str, str], Run] = {}
    missing = []
    for method in spec.methods:
        for name in spec.sets:
            request = spec.request(method, name)
            if not (request.out / "summary.json").is_file():
                unfinished = (request.out / ".unfinished").exists()
                reason = f"{'an unfinished' if unfinished else 'no'} run in {request.out}"
                missing.append(MissingCell(method.name, name, reason, command(method, request)))
                continue
            run = load_run(request.out)
            if run.summary["task"] != spec.task:
                raise SaliencyError(f"{run.folder} is of {run.summary['task']}: the table is of {spec.task}")
            runs[method.name, name] = run
    for name in spec.sets:
        if same := [run for (_, data), run in runs.items() if data == name]:
            check_comparable(same)
    return ResultsTable(spec, runs, tuple(missing), p_values(spec, runs))


def table_of(runs: Sequence[Run], metrics: Sequence[str] | None = None) -> ResultsTable:
    """Make the table of finished runs: methods by sets, both in the order of the runs.

    The reference is the method of the first run. Runs of one ground truth are of one set. Runs that share
    method and set are told apart by their folders.

    Args:
        runs: the runs, at least one.
        metrics: the metrics of the table and the p-values. Without them the table has those of
            `DEFAULT_METRICS`, and there are p-values for all metrics that can be paired.

    Raises:
        SaliencyError: if there is no such metric, or runs of a set differ in task, photos or ground truth.
    """
    task = Task(runs[0].summary["task"])
    known = definitions(task)
    if unknown := [metric for metric in metrics or () if metric not in known]:
        raise SaliencyError(f"unknown metric {unknown[0]!r}: choose from {', '.join(known)}")
    names = [run.method for run in runs]
    sets: dict[str, str] = {}
    placed: dict[tuple[str, str], Run] = {}
    data = [sets.setdefault(run.summary["data"]["fingerprint"], run.summary["data"]["name"]) for run in runs]
    places = list(zip(names, data, strict=True))
    for place, run in zip(places, runs, strict=True):
        method = f"{place[0]} ({run.folder.name})" if places.count(place) > 1 else place[0]
        placed[_free((method, place[1]), placed)] = run
    for name in dict.fromkeys(data):
        check_comparable([run for (_, of), run in placed.items() if of == name])
    if other := next((run for run in runs if run.summary["task"] != task), None):
        raise SaliencyError(f"{other.folder} is of {other.summary['task']}, {runs[0].folder} of {task}")
    methods = tuple(Method(name) for name in dict.fromkeys(method for method, _ in placed))
    tested = TableSpec(
        task,
        {name: Path(run.summary["data"]["path"]) for (_, name), run in placed.items()},
        methods,
        Path(),
        tuple(metrics or known),
        methods[0].name,
    )
    shown = replace(tested, metrics=tuple(metrics or DEFAULT_METRICS[task]))
    return ResultsTable(shown, placed, (), p_values(tested, placed))


def _free(place: tuple[str, str], taken: Mapping[tuple[str, str], Run]) -> tuple[str, str]:
    number, free = 1, place
    while free in taken:
        number += 1
        free = f"{place[0]} {number}", place[1]
    return free


def command(method: Method, request: Request) -> str:
    """Return the command that makes a run; empty if only a finished run was named."""
    if method.model is not None:
        given = ["--model", method.model]
        given += [] if method.segmenter is None else ["--segmenter", method.segmenter]
        given += ["--fast"] if method.fast else []
        for one in fields(PolicyOptions):
            value = getattr(method.options, one.name)
            if value != one.default:
                flag = f"--{one.name.replace('_', '-')}"
                given += [flag] if value is True else [flag, str(value)]
    elif request.predictions is not None:
        given = ["--predictions", str(request.predictions)]
    else:
        return ""
    words = ["saliency-r1", "evaluate", request.task.value, "--data", str(request.data), *given]
    return shlex.join([*words, "--out", str(request.out)])


def p_values(spec: TableSpec, runs: Mapping[tuple[str, str], Run]) -> dict[tuple[str, str, str], float]:
    """Return corrected p-values of each method against the reference, where both scored the same photos."""
    raw = {}
    for (method, name), run in runs.items():
        reference = runs.get((spec.reference, name))
        if reference is None or method == spec.reference:
            continue
        for metric in spec.metrics:
            pairs = np.array(
                [
                    (row.values.get(metric, np.nan), reference.rows[photo].values.get(metric, np.nan))
                    for photo, row in run.rows.items()
                ]
            )
            pairs = pairs[np.isfinite(pairs).all(1)]
            if len(pairs):
                raw[method, name, metric] = signed_rank(pairs[:, 0] - pairs[:, 1])
    return dict(zip(raw, holm(list(raw.values())), strict=True))


def signed_rank(differences: np.ndarray) -> float:
    """Return the p-value of the two-sided Wilcoxon signed-rank test (zeros by Pratt); 1 if all are zero."""
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number with Holm's method (1979); the order is kept.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.") or "unnamed"
