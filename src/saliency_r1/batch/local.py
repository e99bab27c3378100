"""The engine of one machine: processes that hold the models; one that dies is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from saliency_r1.batch.chunk_worker import ChunkWorker, Job
from saliency_r1.batch.plan import Chunk
from saliency_r1.batch.rows import Row, error_row
from saliency_r1.batch.sources import Photo
from saliency_r1.errors import SaliencyError

RETRIES = 2
"""Number of retries of a chunk whose worker died: first unchanged, then photo by photo."""


@dataclass
class _Work:
    """Photos of a chunk that a worker gets together."""

    chunk: Chunk
    photos: Sequence[Photo]
    deaths: int = 0


@dataclass
class _Process:
    """A worker and its work."""

    process: Any
    connection: Connection
    ready: bool = False
    work: _Work | None = None


def run_local(
    chunks: Iterable[tuple[Chunk, Sequence[Photo]]], job: Job, workers: int
) -> Iterator[tuple[Chunk, list[Row], str]]:
    """Process chunks in worker processes; yield each with its rows and the model's name as it is finished.

    A worker holds one chunk and gets the next when it has finished it, so memory does not grow with their
    number. If a worker dies, another one replaces it and the chunk is processed again, then photo by photo.
    If a photo kills its worker for the third time, its row says so. Workers exit when this process is gone,
    even by a kill. There are at most as many workers as chunks.

    Raises:
        SaliencyError: if a worker cannot load the models, or fails for another reason than a photo.
    """
    pool = _Pool(job, workers)
    try:
        yield from pool.run(iter(chunks))
    finally:
        pool.close()


class _Pool:
    def __init__(self, job: Job, workers: int) -> None:
        self._context: Any = multiprocessing.get_context("spawn")
        self._job = job
        self._workers = workers
        self._again: deque[_Work] = deque()
        self._parts: dict[int, dict[Photo, Row]] = {}
        self._model = ""
        self._unready_deaths = 0
        self._processes: list[_Process] = []

    def run(self, chunks: Iterator[tuple[Chunk, Sequence[Photo]]]) -> Iterator[tuple[Chunk, list[Row], str]]:
        photos: dict[int, Sequence[Photo]] = {}
        while True:
            self._hand_out(chunks, photos)
            busy = {each.connection: each for each in self._processes if each.work is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                for chunk, rows in self._receive(busy[connection]):  # type: ignore[index]
                    known = self._parts.setdefault(chunk.index, {})
                    known.update(rows)
                    if len(known) == chunk.stop - chunk.start:
                        del self._parts[chunk.index]
                        yield chunk, [known[photo] for photo in photos.pop(chunk.index)], self._model

    def _hand_out(
        self, chunks: Iterator[tuple[Chunk, Sequence[Photo]]], photos: dict[int, Sequence[Photo]]
    ) -> None:
        """Give work to each idle worker, and start workers that are missing."""
        for number in range(self._workers):
            started = number < len(self._processes)
            if started and self._processes[number].work is not None:
                continue
            work = self._next(chunks, photos)
            if work is None:
                return
            if not started:
                self._processes.append(self._start())
            process = self._processes[number]
            process.work = work
            with suppress(OSError):  # a dead worker is noticed when its answer is read
                process.connection.send(work.photos)

    def _next(
        self, chunks: Iterator[tuple[Chunk, Sequence[Photo]]], photos: dict[int, Sequence[Photo]]
    ) -> _Work | None:
        if self._again:
            return self._again.popleft()
        for chunk, of_chunk in chunks:
            photos[chunk.index] = of_chunk
            return _Work(chunk, of_chunk)
        return None

    def _receive(self, process: _Process) -> Iterator[tuple[Chunk, dict[Photo, Row]]]:
        try:
            kind, answer = process.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(process)
            return
        if kind == "failed":
            raise answer
        if kind == "ready":
            process.ready = True
            self._model = answer
        else:
            work, process.work = process.work, None
            assert work is not None
            yield work.chunk, dict(zip(work.photos, answer, strict=True))

    def _replace(self, process: _Process) -> Iterator[tuple[Chunk, dict[Photo, Row]]]:
        """Replace a worker that died, and decide how to continue its work."""
        process.process.join(5)
        code = process.process.exitcode
        process.connection.close()
        work = process.work
        assert work is not None
        if not process.ready:
            self._unready_deaths += 1
            if self._unready_deaths > RETRIES:
                raise SaliencyError(
                    f"worker processes die as they load the models (exit code {code}); was memory short? "
                    "Try fewer --workers; the same command continues this run"
                )
            self._again.append(work)
        else:
            work.deaths += 1
            if work.deaths > RETRIES:
                reason = f"the worker process died {work.deaths} times over it (exit code {code})"
                rows = {photo: error_row(photo, self._job.task, reason) for photo in work.photos}
                yield work.chunk, rows
            elif work.deaths == RETRIES and not self._job.task.spec.several_images:
                self._again.extend(_Work(work.chunk, [photo], work.deaths) for photo in work.photos)
            else:
                self._again.append(work)
        self._processes[self._processes.index(process)] = self._start()

    def _start(self) -> _Process:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self._job), daemon=True)
        with _threads(self._job.threads):
            process.start()
        there.close()
        return _Process(process, here)

    def close(self) -> None:
        for each in self._processes:
            each.connection.close()
            each.process.kill()
        for each in self._processes:
            each.process.join()


def _serve(connection: Connection, job: Job) -> None:
    """The loop of a worker: load the models, then read photos and answer with rows, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # both reach the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        worker = ChunkWorker(job)
        connection.send(("ready", worker.model))
        while True:
            connection.send(("done", worker.rows(connection.recv())))
    except SaliencyError as error:
        with suppress(OSError):
            connection.send(("failed", error))
    except (EOFError, OSError):
        return


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """While it lasts, new processes use that many threads, set before they import torch."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if count is not None:
        os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
