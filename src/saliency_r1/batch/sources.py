"""Which photos folders, globs, lists, Parquet tables and WebDataset shards hold, and how one is read."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from saliency_r1.batch.storage import absolute, file_system, is_url, named, read_bytes
from saliency_r1.errors import SaliencyError
from saliency_r1.images import IMAGE_SUFFIXES

TABLE, TAR, LIST = ".parquet", ".tar", ".txt"

COLUMNS = ("image", "path", "url", "file_name", "jpg", "png")
"""The columns of a table in which photos are looked for if none is named, in this order."""

_READ_ROWS = 16
_FILES = IMAGE_SUFFIXES | {TABLE, TAR, LIST}


@dataclass(frozen=True)
class Photo:
    """A photo to read.

    Attributes:
        path: what its row is called by.
        stem: of the files that are written for it, with `/` between folders; no two photos have one.
        group: of co-saliency.
        url: the file that it is, or that it lies in.
        offset: where it begins in a tar; the number of its row in a table.
        size: its bytes in a tar.
        column: of a table whose cells are the photos themselves.
    """

    path: str
    stem: str
    group: str
    url: str
    offset: int | None = None
    size: int | None = None
    column: str | None = None


PHOTO_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("path", "stem", "group", "url")]
    + [(name, pa.int64()) for name in ("offset", "size")]
    + [("column", pa.string())]
)


def find_photos(
    sources: Sequence[str], column: str | None = None, group_column: str | None = None
) -> pa.Table:
    """All photos of the sources, in their order.

    A folder gives the pictures in it and below, those with an ending in `IMAGE_SUFFIXES`, sorted; one
    without pictures its tables, else its tars. A glob gives what it matches. A file is read by its ending:
    `.txt` a path or URL a line, those without a root being from the list's folder on; `.parquet` a table with
    a column of paths or of pictures (bytes, or structs with `bytes`); `.tar` a WebDataset shard; any other is
    a picture.

    The group of a photo is the folder it lies in, in a tar without folders the tar, in a table the cell of
    `group_column`, if there is one.

    Args:
        sources: paths, globs, URLs.
        column: of tables, where the photos are; default the first of `COLUMNS` that is there.
        group_column: of tables.

    Returns:
        A table with `PHOTO_SCHEMA`. A file reached twice is listed twice.

    Raises:
        SaliencyError: if a source cannot be read, or gives nothing.
    """
    wanted: Counter[str] = Counter()
    rows: list[Photo] = []
    for source in sources:
        count = len(rows)
        try:
            for photo in _photos(absolute(source), column, group_column):
                wanted[photo.stem.casefold()] += 1
                rows.append(photo)
        except (OSError, tarfile.TarError, pa.ArrowException) as error:
            raise SaliencyError(f"{source}: cannot be read ({str(error).splitlines()[0]})") from error
        if len(rows) == count:
            raise SaliencyError(
                f"{source}: no photos, expected a folder, a glob, a list ({LIST}), Parquet ({TABLE}) or "
                f"WebDataset shards ({TAR})"
            )
    return pa.Table.from_pylist([asdict(photo) for photo in _unique(rows, wanted)], PHOTO_SCHEMA)


def _unique(photos: Sequence[Photo], wanted: Counter[str]) -> Iterator[Photo]:
    """The photos with stems of their own: the second `dog` becomes `dog-2`."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for photo in photos:
        key = stem = photo.stem.casefold()
        while key in taken or (key != stem and key in wanted):
            numbers[stem] = max(numbers[stem], 1) + 1
            key = f"{stem}-{numbers[stem]}"
        taken.add(key)
        yield photo if key == stem else Photo(**asdict(photo) | {"stem": photo.stem + key[len(stem) :]})


def _photos(source: str, column: str | None, group_column: str | None) -> Iterator[Photo]:
    system, path = file_system(source)
    local = isinstance(system, LocalFileSystem)
    if any(sign in path for sign in "*?[") and not system.exists(path):
        fixed = path.rstrip("/").split("/")
        base = "/".join(fixed[: next(i for i, part in enumerate(fixed) if any(s in part for s in "*?["))])
        for match in sorted(system.glob(path)):
            if system.isdir(match):
                yield from _folder(system, match, base, column, group_column)
            else:
                yield from _file(named(system, match), _relative(match, base), column, group_column)
    elif not local and PurePosixPath(path).suffix.lower() in _FILES:  # asking may cost a download
        yield from _file(source, PurePosixPath(path).name, column, group_column)
    elif system.isdir(path):
        yield from _folder(system, path, path, column, group_column)
    elif local and not system.exists(path):
        raise SaliencyError(f"{source}: no such file or folder")
    else:
        yield from _file(source, PurePosixPath(path).name, column, group_column)


def _folder(
    system: Any, folder: str, base: str, column: str | None, group_column: str | None
) -> Iterator[Photo]:
    files = [
        path
        for path in sorted(system.find(folder))
        if not any(part.startswith(".") for part in PurePosixPath(_relative(path, folder)).parts)
    ]
    for endings in (IMAGE_SUFFIXES, {TABLE}, {TAR}):
        kept = [path for path in files if PurePosixPath(path).suffix.lower() in endings]
        for path in kept:
            yield from _file(named(system, path), _relative(path, base), column, group_column)
        if kept:
            return


def _file(url: str, inner: str, column: str | None, group_column: str | None) -> Iterator[Photo]:
    """The photos of a file; `inner` is its path from the source on."""
    ending = PurePosixPath(inner).suffix.lower()
    if ending == TABLE:
        yield from _table(url, column, group_column)
    elif ending == TAR:
        yield from _tar(url)
    elif ending == LIST:
        text = read_bytes(url).decode("utf-8", "surrogateescape")
        for line in text.splitlines():
            if line.strip():
                yield _listed(line.strip(), url)
    else:
        yield Photo(url, _stem(inner), url.rpartition("/")[0], url)


def _listed(entry: str, url: str, group: str | None = None) -> Photo:
    """The photo that a list or table at `url` names."""
    if not is_url(entry) and not entry.startswith("/"):
        entry = f"{url.rpartition('/')[0]}/{entry}"
    name = PurePosixPath(entry.partition("::")[0].partition("?")[0]).name
    return Photo(entry, _stem(name), entry.rpartition("/")[0] if group is None else group, entry)


def _tar(url: str) -> Iterator[Photo]:
    system, path = file_system(url)
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            inner = PurePosixPath(member.name)
            if member.isfile() and inner.suffix.lower() in IMAGE_SUFFIXES:
                folder = inner.parent.as_posix()
                group = url if folder == "." else folder
                stem = _stem(member.name)
                yield Photo(f"tar://{member.name}::{url}", stem, group, url, member.offset_data, member.size)
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them


def _table(url: str, column: str | None, group_column: str | None) -> Iterator[Photo]:
    system, path = file_system(url)
    with system.open(path, "rb") as file:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        if column is None:
            column = next((name for name in COLUMNS if name in schema.names), None)
        for name in (column, group_column):
            if name is not None and name not in schema.names:
                raise SaliencyError(f"{url}: no column {name!r}, there are {', '.join(schema.names)}")
        if column is None:
            raise SaliencyError(
                f"{url}: no column {' or '.join(COLUMNS)}, there are {', '.join(schema.names)}: name one "
                "with --column"
            )
        kind = schema.field(column).type
        paths = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not paths and not _holds_bytes(kind):
            raise SaliencyError(
                f"{url}: column {column!r} holds {kind}, expected paths, or pictures as bytes"
            )
        read = [name for name in (column if paths else None, group_column) if name is not None]
        stem = PurePosixPath(path).stem
        row = 0
        for batch in table.iter_batches(columns=read) if read else ():
            for cells in batch.to_pylist():
                group = str(cells[group_column]) if group_column else None
                if paths and cells[column]:
                    yield _listed(cells[column], url, group)
                else:
                    yield _cell(url, stem, row, column, group)
                row += 1
        if not read:
            yield from (_cell(url, stem, row, column, None) for row in range(table.metadata.num_rows))


def _cell(url: str, stem: str, row: int, column: str, group: str | None) -> Photo:
    name = f"{url}#{row}"
    return Photo(name, f"{stem}-{row:06d}", url if group is None else group, url, row, None, column)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return "bytes" in names and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _stem(inner: str) -> str:
    parts = [part for part in PurePosixPath(inner).parts if part not in ("/", "..")]
    return PurePosixPath(*parts).with_suffix("").as_posix() if parts else "image"


def _relative(path: str, base: str) -> str:
    return path.removeprefix(base).lstrip("/") if base else path.lstrip("/")


def read_photos(photos: Sequence[Photo]) -> Iterator[tuple[Photo, bytes | Exception]]:
    """The content of each photo, or why it cannot be read, in their order.

    The cells of a table are read forward from the group of rows they lie in, a few at a time.
    """
    cells = _Cells()
    for photo in photos:
        content: bytes | Exception
        try:
            if photo.column is not None:
                content = cells.read(photo)
            else:
                content = read_bytes(photo.url, photo.offset or 0, photo.size)
        except Exception as error:  # each backend has errors of its own
            content = error
        yield photo, content
    cells.close()


class _Cells:
    """Reads cells of tables; those that follow each other cost one pass."""

    def __init__(self) -> None:
        self._url = ""
        self._file: Any = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._ready: Any = ()
        self._next = 0

    def read(self, photo: Photo) -> bytes:
        assert photo.offset is not None
        assert photo.column is not None
        if photo.url != self._url or photo.offset < self._next:
            self._start(photo.url, photo.offset, photo.column)
        while self._next + len(self._ready) <= photo.offset:
            self._next += len(self._ready)
            self._ready = next(self._batches).column(0)
        cell = self._ready[photo.offset - self._next].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise OSError("the cell is empty")
        return content

    def _start(self, url: str, row: int, column: str) -> None:
        self.close()
        system, path = file_system(url)
        self._file = system.open(path, "rb")
        table = pq.ParquetFile(self._file)
        first = group = 0
        while row >= first + table.metadata.row_group(group).num_rows:
            first += table.metadata.row_group(group).num_rows
            group += 1
        groups = range(group, table.num_row_groups)
        self._url, self._next = url, first
        self._ready = ()
        self._batches = table.iter_batches(_READ_ROWS, row_groups=list(groups), columns=[column])

    def close(self) -> None:
        """Close the table that is open."""
        if self._file is not None:
            self._file.close()
        self._url, self._file = "", None
