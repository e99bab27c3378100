"""The plan of a run: which photos, in which chunks and shards; kept beside the output for resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from saliency_r1.batch.sources import PHOTO_SCHEMA, Photo, find_photos
from saliency_r1.batch.storage import Folder, absolute
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

PLAN_FILE = "_plan.parquet"
"""Files in the output folder; readers of Parquet data sets ignore names that begin with `_`."""

CHUNK_PHOTOS = 16
_KEY = b"saliency-r1"


@dataclass(frozen=True)
class Settings:
    """The settings that determine the rows of a run. Workers, engine and device may change on resuming.

    Attributes:
        sources: the sources as given; local paths are absolute.
        task: the task.
        fast: whether the policy skips the reasoning.
        group_images: for co-saliency, see `saliency_r1.cosod`.
        policy: name of the policy; None for the embedded one.
        segmenter: name of the segmenter; None for the embedded one.
        shard_rows: rows of a shard; a shard of groups has more if a group is larger.
        png: whether masks are also written as pictures.
        column: column of photos in tables, see `find_photos`.
        group_column: column of groups in tables.
        version: version of this package.
        accept_truncated: whether damaged photos that end too early are read as far as they go.
    """

    sources: tuple[str, ...]
    task: Task
    fast: bool
    group_images: int
    policy: str | None
    segmenter: str | None
    shard_rows: int
    png: bool
    column: str | None
    group_column: str | None
    version: str
    accept_truncated: bool = False

    @classmethod
    def make(cls, sources: Sequence[str], **given: Any) -> Settings:
        """Return the settings of this version, with absolute local sources."""
        return cls(sources=tuple(map(absolute, sources)), version=version("saliency-r1"), **given)


@dataclass(frozen=True)
class Chunk:
    """Photos that one worker processes together; for co-saliency a group.

    Attributes:
        index: the chunk's number in the plan.
        shard: number of the shard of its rows.
        start: index of its first photo.
        stop: index after its last photo.
    """

    index: int
    shard: int
    start: int
    stop: int


class Plan:
    """The photos of a run, and their division into chunks and shards.

    The cuts depend only on the settings and the list of photos, so a resumed run has the same cuts.

    Args:
        settings: the settings of the run.
        photos: table with `PHOTO_SCHEMA`; for co-saliency the photos of a group are adjacent.
    """

    def __init__(self, settings: Settings, photos: pa.Table) -> None:
        self.settings = settings
        self.photos = photos
        grouped = settings.task.spec.several_images
        self.chunks = _group_chunks(photos, settings) if grouped else _photo_chunks(len(photos), settings)

    @classmethod
    def open(cls, settings: Settings, out: Folder) -> tuple[Plan, bool]:
        """Read the plan of the run in the folder, or make a new one and write it there.

        Returns:
            The plan, and whether it existed.

        Raises:
            SaliencyError: if the folder holds another run or other files, or the sources cannot be read.
        """
        names = out.names()
        if PLAN_FILE in names:
            return cls(settings, _read(settings, out)), True
        others = [name for name in names if not name.startswith(".")]
        if others:
            raise SaliencyError(
                f"{out.url}: holds {others[0]!r} and no run of saliency-r1 batch; give another --out"
            )
        photos = find_photos(settings.sources, settings.column, settings.group_column, out=out.url)
        if settings.task.spec.several_images:
            photos = _grouped(photos)
        content = BytesIO()
        pq.write_table(photos.replace_schema_metadata({_KEY: _dumps(settings)}), content, compression="zstd")
        out.write(PLAN_FILE, content.getvalue())
        return cls(settings, photos), False

    def shard_photos(self) -> list[int]:
        """Return the number of photos of each shard."""
        counts = [0] * (self.chunks[-1].shard + 1)
        for chunk in self.chunks:
            counts[chunk.shard] += chunk.stop - chunk.start
        return counts

    def read(self, chunk: Chunk) -> list[Photo]:
        """Return the photos of a chunk."""
        rows = self.photos.slice(chunk.start, chunk.stop - chunk.start).to_pylist()
        return [Photo(**row) for row in rows]


def _photo_chunks(count: int, settings: Settings) -> list[Chunk]:
    chunks: list[Chunk] = []
    for first in range(0, count, settings.shard_rows):
        end = min(first + settings.shard_rows, count)
        for start in range(first, end, CHUNK_PHOTOS):
            stop = min(start + CHUNK_PHOTOS, end)
            chunks.append(Chunk(len(chunks), first // settings.shard_rows, start, stop))
    return chunks


def _group_chunks(photos: pa.Table, settings: Settings) -> list[Chunk]:
    chunks: list[Chunk] = []
    shard = rows = 0
    for start, stop in _runs(photos.column("group").to_pylist()):
        if rows >= settings.shard_rows:
            shard, rows = shard + 1, 0
        chunks.append(Chunk(len(chunks), shard, start, stop))
        rows += stop - start
    return chunks


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for stop in range(1, len(values) + 1):
        if stop == len(values) or values[stop] != values[start]:
            yield start, stop
            start = stop


def _grouped(photos: pa.Table) -> pa.Table:
    """Sort the photos by group, with groups in the order of their first photo."""
    groups = photos.column("group").to_pylist()
    turns: dict[str, int] = {}
    for group in groups:
        turns.setdefault(group, len(turns))
    return photos.take(sorted(range(len(groups)), key=lambda row: turns[groups[row]]))


def _read(settings: Settings, out: Folder) -> pa.Table:
    try:
        with out.open(PLAN_FILE) as file:
            photos = pq.read_table(file)
        before = json.loads(photos.schema.metadata[_KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise SaliencyError(f"{out.url}/{PLAN_FILE}: cannot be read; give another --out") from error
    now = json.loads(_dumps(settings))
    for name in now:
        if before.get(name) != now[name]:
            raise SaliencyError(
                f"{out.url}: holds a run with {name} {_shown(before.get(name))}, this one has "
                f"{_shown(now[name])}; give the same command to continue it, or another --out"
            )
    return photos.cast(PHOTO_SCHEMA)


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _dumps(settings: Settings) -> bytes:
    return json.dumps(asdict(settings)).encode()
