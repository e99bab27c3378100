"""Run many photos: an engine processes what is missing, and complete shards of rows are written."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from saliency_r1.batch.plan import Chunk, Plan, Settings
from saliency_r1.batch.rows import Row, shard_counts, shard_name, write_shard
from saliency_r1.batch.sources import Photo
from saliency_r1.batch.storage import Folder
from saliency_r1.errors import SaliencyError

Engine: TypeAlias = Callable[
    [Iterable[tuple[Chunk, Sequence[Photo]]]], Iterator[tuple[Chunk, list[Row], str]]
]
"""Function that processes chunks and yields each with its rows and the model's name, in any order."""

SIGTERM_EXIT = 128 + signal.SIGTERM
"""The exit code of a run that was asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """The state of an output folder after a run.

    Attributes:
        photos: number of rows.
        errors: number of rows with an error.
        before: number of rows that existed when the run began.
    """

    photos: int
    errors: int
    before: int


def run_batch(settings: Settings, out: Folder, engine: Engine, console: Console) -> Outcome:
    """Process the remaining photos of a run, and write the rows to the folder.

    A shard is written completely when all of its rows are there. A killed run continues with the missing
    shards. On SIGTERM the process ends with `SIGTERM_EXIT`.

    Args:
        settings: the settings of the run.
        out: the output folder.
        engine: the engine that processes the photos.
        console: console for remarks and, on a terminal, progress with the rate and the time left.

    Raises:
        SaliencyError: if the folder holds another run, or if a source, the folder or the engine fails.
    """
    with _ending_on_sigterm():
        plan, was_there = Plan.open(settings, out)
        out.remove_unfinished()
        counts = plan.shard_photos()
        done = _done(out, counts)
        before = sum(counts[shard] for shard in done)
        errors = sum(done.values())
        if was_there:
            console.print(f"going on: {before:,} of {len(plan.photos):,} photos are done", style="dim")
        chunks = [chunk for chunk in plan.chunks if chunk.shard not in done]
        if chunks:
            errors += _work(plan, chunks, counts, out, engine, console, before)
        return Outcome(len(plan.photos), errors, before)


def _work(
    plan: Plan,
    chunks: Sequence[Chunk],
    counts: Sequence[int],
    out: Folder,
    engine: Engine,
    console: Console,
    before: int,
) -> int:
    """Process the chunks, write their shards, and return the number of rows with an error."""
    open_shards: dict[int, dict[int, list[Row]]] = defaultdict(dict)
    errors = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden, speed_estimate_period=60) as bar:
        progress = bar.add_task("photos", total=len(plan.photos), completed=before)
        for chunk, rows, model in engine((chunk, plan.read(chunk)) for chunk in chunks):
            shard = open_shards[chunk.shard]
            shard[chunk.index] = rows
            bar.advance(progress, len(rows))
            if sum(map(len, shard.values())) == counts[chunk.shard]:
                ordered = [row for index in sorted(shard) for row in shard[index]]
                write_shard(out, chunk.shard, ordered, model)
                errors += sum(row["error"] is not None for row in ordered)
                del open_shards[chunk.shard]
    if open_shards:
        raise SaliencyError("the engine lost photos; the same command processes them again")
    return errors


def _done(out: Folder, counts: Sequence[int]) -> dict[int, int]:
    """Return the existing shards, and the number of rows with an error of each."""
    names = set(out.names())
    there = [shard for shard in range(len(counts)) if shard_name(shard) in names]

    def errors(shard: int) -> int:
        try:
            rows, errors = shard_counts(out, shard)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise SaliencyError(
                f"{out.url}/{shard_name(shard)}: cannot be read; delete it, and repeat the command"
            ) from error
        if rows != counts[shard]:
            raise SaliencyError(
                f"{out.url}/{shard_name(shard)}: {rows} rows, expected {counts[shard]}; delete it, and "
                "repeat the command"
            )
        return errors

    with ThreadPoolExecutor(16) as threads:
        return dict(zip(there, threads.map(errors, there), strict=True))


class _Rate(ProgressColumn):
    """Return the photos per second of the last minute."""

    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text("–/s" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """While it lasts, SIGTERM ends the process properly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise SystemExit(SIGTERM_EXIT)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
