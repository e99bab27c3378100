"""The engine for several machines: Ray Data, with actors that hold the models."""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Before Ray is imported, because it sends usage statistics by default.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data

from saliency_r1.batch.chunk_worker import ChunkWorker, Job
from saliency_r1.batch.local import RETRIES
from saliency_r1.batch.plan import Chunk
from saliency_r1.batch.rows import Row, error_row
from saliency_r1.batch.sources import Photo
from saliency_r1.errors import SaliencyError

_OBJECT_STORE_BYTES = 200_000_000
_BLOCKS = 4096
_AHEAD = 2
_SECONDS_TO_CONNECT = 10


@dataclass(frozen=True)
class RayOptions:
    """Settings for Ray.

    Attributes:
        address: address of the cluster; None starts a local Ray instance and stops it afterwards.
        min_actors: minimum number of actors.
        max_actors: maximum number of actors.
        gpus: GPUs of an actor; with a fraction several actors share one.
    """

    address: str | None
    min_actors: int
    max_actors: int
    gpus: float


def run_on_ray(
    chunks: Iterable[tuple[Chunk, Sequence[Photo]]], job: Job, options: RayOptions
) -> Iterator[tuple[Chunk, list[Row], str]]:
    """Process chunks in Ray actors; yield each with its rows and the model's name as it is finished.

    Actors wait if rows are not taken as fast as they are made. An actor that dies is restarted, and its chunk
    is processed again, at most twice. What is still missing is processed at the end, photo by photo, and the
    rows of photos that kill their actor again say so.

    Raises:
        SaliencyError: if there is no cluster at the address, or if an actor cannot load the models or fails
            for another reason than a photo.
    """
    if options.min_actors > options.max_actors:
        raise SaliencyError(f"--min-workers {options.min_actors} is more than --workers {options.max_actors}")
    _connect(options.address)
    try:
        yield from _chunks(list(chunks), job, options)
    except ray.exceptions.RayError as error:
        raise SaliencyError(
            f"Ray: {str(error).strip().splitlines()[-1]}; the same command continues this run"
        ) from error
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        quiet |= {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        host, colon, port = (address or "").rpartition(":")
        if colon and port.isdecimal() and "/" not in host:  # Ray itself would retry for minutes
            socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
        ray.init(address or "local", **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SaliencyError(
            f"Ray: no cluster at {address} ({reason}); start one with `ray start --head`"
        ) from error


def _chunks(
    chunks: Sequence[tuple[Chunk, Sequence[Photo]]], job: Job, options: RayOptions
) -> Iterator[tuple[Chunk, list[Row], str]]:
    lost = dict(enumerate(chunks))
    model = ""
    for number, rows, model in _stream([photos for _, photos in chunks], job, options):
        yield lost.pop(number)[0], rows, model
    if not lost:
        return
    reason = "the actors that were to do it died"
    rows_of = {photo: error_row(photo, job.task, reason) for _, photos in lost.values() for photo in photos}
    if not job.task.spec.several_images:
        alone = list(rows_of)
        for number, (row,), _ in _stream([[photo] for photo in alone], job, options, last=True):
            rows_of[alone[number]] = row
    for chunk, photos in lost.values():
        yield chunk, [rows_of[photo] for photo in photos], model


def _stream(
    parts: Sequence[Sequence[Photo]], job: Job, options: RayOptions, *, last: bool = False
) -> Iterator[tuple[int, list[Row], str]]:
    """Process photos that belong together; yield number, rows and model of those that are not lost.

    In a `last` try an actor has no other work that would be lost with it, and nothing is retried.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a block that kills actors is skipped, and the others are processed
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    items = [
        {"number": number, "photos": json.dumps([asdict(photo) for photo in photos])}
        for number, photos in enumerate(parts)
    ]
    with warnings.catch_warnings():
        # Deprecated, but the only way to limit the retries; pyproject.toml limits Ray's version.
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        answers = ray.data.from_items(items, override_num_blocks=min(len(items), _BLOCKS)).map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=options.min_actors,
                max_size=options.max_actors,
                max_tasks_in_flight_per_actor=1 if last else _AHEAD,
            ),
            num_cpus=1,
            num_gpus=options.gpus,
            max_task_retries=0 if last else RETRIES,
        )
    for answer in answers.iter_rows():
        if answer["failed"]:
            raise SaliencyError(answer["failed"])
        yield answer["number"], json.loads(answer["rows"]), answer["model"]


class _Actor:
    """A worker for Ray Data: it takes a batch of one chunk and returns one answer."""

    def __init__(self, job: Job) -> None:
        self._failed = ""
        try:
            self._worker = ChunkWorker(job)
        except SaliencyError as error:
            self._failed = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows: list[Row] = []
        if not self._failed:
            photos = [Photo(**photo) for photo in json.loads(str(batch["photos"][0]))]
            try:
                rows = self._worker.rows(photos)
            except SaliencyError as error:
                self._failed = str(error)
        return {
            "number": [int(batch["number"][0])],
            "rows": [json.dumps(rows)],
            "model": ["" if self._failed else self._worker.model],
            "failed": [self._failed],
        }
