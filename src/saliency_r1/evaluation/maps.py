"""Score folders of saliency maps against masks, for SOD and CoSOD, in worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np

from saliency_r1.data.groups import group_of
from saliency_r1.data.mask_files import MaskValues
from saliency_r1.data.samples import Sample
from saliency_r1.errors import ImageError, one_line
from saliency_r1.evaluation.evaluation import Evaluation, Row, words_beside
from saliency_r1.evaluation.predictions import Matched, Pair, Problem, refuse
from saliency_r1.evaluation.reading import BY_BRIGHTNESS, Reading, check_doubts
from saliency_r1.evaluation.sod_scores import CURVES, SCALARS, THRESHOLDS, SodMean
from saliency_r1.evaluation.workspace import Workspace, key_of
from saliency_r1.tasks import Task
from saliency_r1.workers import map_unordered

CHUNK = 20
"""Photos in a worker's chunk; a kill loses at most one chunk for each worker."""

Progress = Callable[[int, int], None]
"""Called with the number of finished photos and of all photos."""


@dataclass(frozen=True)
class Chunk:
    """Pairs that are scored together.

    Attributes:
        index: the chunk's number.
        pairs: pairs of a mask and its prediction, or no prediction.
        reading: how the files are read.
    """

    index: int
    pairs: tuple[Pair, ...]
    reading: Reading = BY_BRIGHTNESS


@dataclass(frozen=True)
class ChunkScores:
    """A worker's results.

    Attributes:
        scalars: float64 (N, 12), see `SCALARS`.
        curves: float64 (4, 256), the sum of the photos' `CURVES`.
        digests: SHA-256 of each mask's file.
        problems: reason for each photo that was scored as an empty mask, "" for the others.
        doubts: texts (2, N) for each mask and each prediction, "" where there is no doubt.
        resized: bool (N,): whether the prediction was.
    """

    scalars: np.ndarray
    curves: np.ndarray
    digests: np.ndarray
    problems: np.ndarray
    doubts: np.ndarray
    resized: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all of it, to be kept."""
        return dict(vars(self))


def score_chunk(chunk: Chunk) -> ChunkScores:
    """Read and score the pairs of a chunk; runs in a worker.

    Raises:
        ImageError: if a mask cannot be read.
    """
    from saliency_r1.evaluation.sod import score  # only workers load the metrics' libraries

    scalars, digests, problems, doubts, resized = [], [], [], [], []
    curves = np.zeros((len(CURVES), len(THRESHOLDS)))
    for pair in chunk.pairs:
        content = _read(pair.truth)
        truth, doubt = chunk.reading.mask(content, str(pair.truth))
        prediction, problem, other_doubt, was_resized = np.zeros(truth.shape, np.uint8), "", "", False
        if pair.prediction is not None:
            try:
                # Its size was read from the header before, but the file may have changed since.
                prediction, other_doubt, was_resized = chunk.reading.prediction(pair.prediction, truth.shape)
            except ImageError as error:
                problem = f"unreadable, {error}"
        scores = score(prediction, truth)
        scalars.append(scores.scalars())
        curves += scores.curves()
        digests.append(hashlib.sha256(content).hexdigest())
        problems.append(problem)
        doubts.append((doubt, other_doubt))
        resized.append(was_resized)
    return ChunkScores(
        np.array(scalars),
        curves,
        np.array(digests),
        np.array(problems),
        np.array(doubts, dtype=str).T,
        np.array(resized),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({one_line(error)})") from error


def run_key(matched: Matched, task: Task, missing: str, reading: Reading) -> str:
    """Return what identifies a run over given predictions; see `Workspace`."""
    options = {
        "task": str(task),
        "missing": missing,
        "metrics": SCALARS,
        **reading.options(),
        "saliency-r1": version("saliency-r1"),
        "pysodmetrics": version("pysodmetrics"),
    }
    return key_of(options, (path for pair in matched.pairs for path in (pair.truth, pair.prediction)))


def evaluate_maps(
    samples: Sequence[Sample],
    matched: Matched,
    task: Task,
    workspace: Workspace,
    *,
    workers: int,
    missing: str = "error",
    reading: Reading = BY_BRIGHTNESS,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score every sample's prediction.

    Args:
        samples: samples with masks.
        matched: their predictions; if `missing` is `error`, call `Matched.refuse_problems` before.
        task: `sod` or `cosod`.
        workspace: keeps finished work.
        workers: number of processes; 0 uses this one.
        missing: `error`, or `empty` to score an empty mask where a prediction cannot be scored.
        reading: how masks and predictions are read.
        progress: called with the progress.

    Raises:
        SaliencyError: if predictions cannot be decoded and `missing` is `error`, or if most masks or
            predictions are doubtful (see `saliency_r1.evaluation.reading`).
        ImageError: if a mask cannot be read.
    """
    chunks = list(_chunks(matched.pairs, task, reading))
    done = sum(len(chunk.pairs) for chunk in chunks if workspace.has_part(_part(chunk)))
    progress(done, len(samples))
    broken: list[Problem] = []
    todo = (chunk for chunk in chunks if not workspace.has_part(_part(chunk)))
    for chunk, scores in map_unordered(score_chunk, todo, workers, preload=("saliency_r1.evaluation.sod",)):
        found = [
            Problem(pair.name, str(reason))
            for pair, reason in zip(chunk.pairs, scores.problems, strict=True)
            if reason
        ]
        broken += found
        if not found or missing == "empty":
            workspace.save_part(_part(chunk), scores.arrays())
        done += len(chunk.pairs)
        progress(done, len(samples))
    if broken and missing != "empty":
        raise refuse(broken, len(samples), matched.folder)
    return _gather(
        samples, chunks, task, workspace, {one.name: one.reason for one in matched.problems}, matched.extra
    )


def _chunks(pairs: Sequence[Pair], task: Task, reading: Reading) -> Iterator[Chunk]:
    """Split the pairs; in CoSOD a chunk is a group, so that its curves are the group's."""
    if task is Task.COSOD:
        grouped = (tuple(members) for _, members in groupby(pairs, key=lambda pair: group_of(pair.name)))
    else:
        grouped = (tuple(pairs[start : start + CHUNK]) for start in range(0, len(pairs), CHUNK))
    return (Chunk(index, members, reading) for index, members in enumerate(grouped))


def _part(chunk: Chunk) -> str:
    return f"{chunk.index:06d}"


def _row(pair: Pair, values: Sequence[float], image: Path, reason: str | None) -> Row:
    return Row(
        pair.name,
        dict(zip(SCALARS, values, strict=True)),
        image,
        pair.truth,
        None if reason else pair.prediction,
        words_beside(pair.prediction),
        reason,
    )


def _gather(
    samples: Sequence[Sample],
    chunks: Sequence[Chunk],
    task: Task,
    workspace: Workspace,
    reasons: dict[str, str],
    extra: tuple[str, ...],
) -> Evaluation:
    image_of = {sample.name: sample.image for sample in samples}
    reading = chunks[0].reading if chunks else BY_BRIGHTNESS
    read_as = "" if reading.masks in (None, MaskValues.GREY) else f":{reading.masks}"
    doubts: list[np.ndarray] = []
    resized = 0
    mean, groups, rows = SodMean(), {}, []
    fingerprint = hashlib.sha256()
    for chunk in chunks:
        part = workspace.load_part(_part(chunk))
        if part is None:
            raise RuntimeError(f"part {chunk.index} is gone: does another run write to {workspace.out}?")
        scores = ChunkScores(**part)
        mean.add(scores.scalars, scores.curves)
        doubts.append(scores.doubts)
        resized += int(scores.resized.sum())
        if task is Task.COSOD:
            of_group = SodMean()
            of_group.add(scores.scalars, scores.curves)
            groups[group_of(chunk.pairs[0].name)] = of_group.result().to_dict()
        for pair, values, digest, problem in zip(
            chunk.pairs, scores.scalars.tolist(), scores.digests, scores.problems, strict=True
        ):
            fingerprint.update(f"{pair.name}:{digest}{read_as}\n".encode())
            reason = str(problem) or reasons.get(pair.name)
            if reason:
                reasons[pair.name] = reason
            rows.append(_row(pair, values, image_of[pair.name], reason))
    of_masks, of_predictions = np.concatenate(doubts, axis=1).tolist()
    notes = [
        *reading.notes(resized, len(rows)),
        *check_doubts(of_masks),
        *check_doubts(of_predictions, predictions=True),
    ]
    result = mean.result()
    numbers = result.to_dict()
    count = numbers.pop("count")
    counts = {"photos": count} | ({"groups": len(groups)} if groups else {})
    return Evaluation(
        task=task,
        metrics=numbers,
        rows=sorted(rows, key=lambda row: row.name),
        ranked_by="s_measure",
        fingerprint=fingerprint.hexdigest(),
        result=result,
        groups=groups,
        problems=tuple(Problem(name, reason) for name, reason in sorted(reasons.items())),
        extra=extra,
        counts=counts | ({"resized predictions": resized} if resized else {}),
        notes=tuple(notes),
    )
