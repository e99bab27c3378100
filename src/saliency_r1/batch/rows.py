"""The rows of the output, one for each photo, and shards of rows as Parquet."""

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
"""`rle`, `boxes`, `scores` and `mask_expressions` have an entry for each mask; see docs/batch.md."""


def result_row(photo: Photo, result: SaliencyResult) -> Row:
    """Return the row of a finished photo."""
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
    """Return the row of a photo that failed: all columns but its identity and the error are null."""
    return _row(photo, task) | {"error": error}


def _row(photo: Photo, task: Task) -> Row:
    row = dict.fromkeys(SCHEMA.names)
    group = photo.group if task.spec.several_images else None
    return row | {"path": photo.path, "task": task.value, "group": group}


def shard_name(shard: int) -> str:
    """Return the file name of a shard."""
    return f"part-{shard:05d}.parquet"


def write_shard(out: Folder, shard: int, rows: Sequence[Row], model: str) -> None:
    """Write a shard, completely or not at all.

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
    """Return the number of rows of an existing shard, and how many of them are errors.

    Raises:
        OSError, pyarrow.ArrowException, KeyError: if it is not a shard.
    """
    with out.open(shard_name(shard)) as file:
        found = pq.ParquetFile(file)
        return found.metadata.num_rows, int((found.schema_arrow.metadata or {})[b"errors"])
