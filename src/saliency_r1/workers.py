"""Work in several processes that always end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from saliency_r1.errors import SaliencyError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8


def default_workers() -> int:
    """Return the number of cores of this process, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS))


def map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, preload: Sequence[str] = ()
) -> Iterator[tuple[Item, Result]]:
    """Apply `function` to each item in worker processes, and yield the results as they are finished.

    Each worker holds one item, and the next is drawn from `items` when one is finished, so memory does not
    grow with their number. A worker whose parent is gone, even by a kill, reads the end of its pipe and
    exits. OpenCV and BLAS use one thread in a worker.

    Args:
        function: importable by name; its items and results must be picklable.
        items: the arguments of `function`.
        workers: number of processes; 0 works in this one.
        preload: modules to import before workers are forked, so that they share their memory.

    Raises:
        SaliencyError: if a worker died. Exceptions of `function` are raised here.
    """
    if workers == 0:
        for item in items:
            yield item, function(item)
        return
    forking = sys.platform != "win32"
    context: Any = multiprocessing.get_context("forkserver" if forking else "spawn")
    if forking:
        context.set_forkserver_preload([__name__, *preload])
    pool: dict[Connection, Any] = {}
    held: dict[Connection, Item] = {}
    source = iter(items)
    try:
        with _one_thread():
            for _ in range(workers):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, function), daemon=True)
                process.start()
                there.close()
                pool[here] = process
        for connection in pool:
            _hand_out(connection, source, held)
        while held:
            for ready in wait(list(held)):
                connection = ready  # type: ignore[assignment]
                item = held.pop(connection)
                try:
                    raised, result = connection.recv()
                except (EOFError, OSError):
                    pool[connection].join(5)
                    raise SaliencyError(
                        f"a worker process died (exit code {pool[connection].exitcode}); was memory short? "
                        "Try fewer --workers; the same command continues this run"
                    ) from None
                if raised:
                    raise result
                _hand_out(connection, source, held)
                yield item, result
    finally:
        for connection, process in pool.items():
            connection.close()
            process.terminate()
        for process in pool.values():
            process.join()


def _hand_out(connection: Connection, source: Iterator[Item], held: dict[Connection, Item]) -> None:
    for item in source:
        held[connection] = item
        # If a worker died at its start, that is noticed when its answer is read.
        with suppress(BrokenPipeError):
            connection.send(item)
        return


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The loop of a worker: read an item and answer, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[bool, Any] = (False, function(item))
        except Exception as error:
            answer = (True, error)
        try:
            connection.send(answer)
        except OSError:
            return


class _one_thread:
    """While it lasts, new processes use one thread each."""

    NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
