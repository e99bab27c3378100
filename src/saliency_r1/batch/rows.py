"""The rows of the output: a row a photo, and shards of them as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from saliency_r1.batch.sources import Photo
from saliency_r1.batch.storage import Folder
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.result import SaliencyResult

Row: TypeAlias = dict[str, Any]

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("response", pa.string()),
        pa.field("reasoning", pa.string()),
        pa.field("expressions", pa.list_(pa.string())),
        pa.field("mask_expressions", pa.list_(pa.string())),
        pa.field("rle", pa.list_(pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]))),
        pa.field("boxes", pa.list_(pa.list_(pa.int32()))),
        pa.field("scores", pa.list_(pa.float64())),
        pa.field("confidence", pa.float64()),
        pa.field("error", pa.string()),
    ]
)
"""`rle`, `boxes`, `scores` and `mask_expressions` have an entry a mask; see docs/batch.md."""


def result_row(photo: Photo, result: SaliencyResult) -> Row:
    """The row of a photo that was done."""
    masks = result.instances
    return _row(photo, result.task) | {
        "response": result.text,
        "reasoning": result.reasoning,
        "expressions": list(result.expressions),
        "mask_expressions": [one.expression for one in masks],
        "rle": [one.rle for one in masks],
        "boxes": [list(box) if (box := one.box) else None for one in masks],
        "scores": [one.score for one in masks],
        "confidence": result.confidence,
    }


def error_row(photo: Photo, task: Task, error: str) -> Row:
    """The row of a photo that could not be done: all but what it is and why is null."""
    return _row(photo, task) | {"error": error}


def _row(photo: Photo, task: Task) -> Row:
    row = dict.fromkeys(SCHEMA.names)
    group = photo.group if task.spec.several_images else None
    return row | {"path": photo.path, "task": task.value, "group": group}


def shard_name(shard: int) -> str:
    """The file of a shard."""
    return f"part-{shard:05d}.parquet"


def write_shard(out: Folder, shard: int, rows: Sequence[Row], model: str) -> None:
    """Write a shard, whole or not at all.

    Raises:
        SaliencyError: if it cannot be written.
    """
    facts = {
        "model": model,
        "version": version("saliency-r1"),
        "errors": str(sum(row["error"] is not None for row in rows)),
    }
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata(facts))
    content = BytesIO()
    pq.write_table(table, content, compression="zstd")
    out.write(shard_name(shard), content.getvalue())


def shard_counts(out: Folder, shard: int) -> tuple[int, int]:
    """The rows of a shard that is there, and how many of them are errors.

    Raises:
        OSError, pyarrow.ArrowException, KeyError: if it is none.
    """
    with out.open(shard_name(shard)) as file:
        found = pq.ParquetFile(file)
        return found.metadata.num_rows, int((found.schema_arrow.metadata or {})[b"errors"])
