"""Find the photos in folders, globs, lists, Parquet tables and WebDataset shards, and read them."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from saliency_r1.batch.storage import absolute, file_system, is_url, named, read_bytes
from saliency_r1.errors import SaliencyError
from saliency_r1.files import decode_text
from saliency_r1.pictures.finding import IMAGE_SUFFIXES, LeftOut

TABLE, TAR, LIST = ".parquet", ".tar", ".txt"

COLUMNS = ("image", "path", "url", "file_name", "jpg", "png")
"""The columns of a table that may hold photos, in order, if none is named."""

_READ_ROWS = 16
_FILES = IMAGE_SUFFIXES | {TABLE, TAR, LIST}


@dataclass(frozen=True)
class Photo:
    """A photo to read.

    Attributes:
        path: the photo's name in its row.
        stem: name of the files that are written for it, with `/` between folders; unique in the run.
        group: its group, for co-saliency.
        url: its file, or the file that contains it.
        offset: its position in a tar, or the number of its row in a table.
        size: its size in a tar, bytes.
        column: the column of a table whose cells are the photos.
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
    sources: Sequence[str],
    column: str | None = None,
    group_column: str | None = None,
    *,
    out: str | None = None,
) -> pa.Table:
    """Find all photos of the sources, in order.

    A folder is searched recursively for pictures with an ending in `IMAGE_SUFFIXES`, sorted; without pictures
    its tables are used, otherwise its tars. A glob gives all matches. A file is read by its ending: `.txt`
    has a path or URL per line, relative to the list's folder, in UTF-8 or as its byte-order mark says;
    `.parquet` is a table with a column of paths or of pictures (bytes, or structs with `bytes`); `.tar` is a
    WebDataset shard; any other file is a picture.

    The group of a photo is its folder, in a tar without folders the tar, and in a table the cell of
    `group_column`, if there is one.

    Args:
        sources: paths, globs, URLs.
        column: column of photos in tables; default the first of `COLUMNS` that exists.
        group_column: column of groups in tables.
        out: the output folder. Its files are skipped if it is inside a source; one warning counts and names
            the skipped pictures, see `saliency_r1.pictures.finding`.

    Returns:
        A table with `PHOTO_SCHEMA`. A file reached twice is listed twice.

    Raises:
        SaliencyError: if a source cannot be read, or has no photos.
    """
    wanted: Counter[str] = Counter()
    reading = _Reading(column, group_column, out)
    rows: list[Photo] = []
    for source in sources:
        count = len(rows)
        try:
            for photo in reading.photos(absolute(source)):
                if not photo.url.isprintable() and not _is_text(photo.url):
                    reading.left_out.add(LeftOut.NAME, Path(photo.path))
                    continue
                wanted[photo.stem.casefold()] += 1
                rows.append(photo)
        except (OSError, tarfile.TarError, pa.ArrowException) as error:
            raise SaliencyError(f"{source}: cannot be read ({str(error).splitlines()[0]})") from error
        if len(rows) == count:
            reading.left_out.warn()
            raise SaliencyError(
                f"{source}: no photos, expected a folder, a glob, a list ({LIST}), Parquet ({TABLE}) or "
                f"WebDataset shards ({TAR})"
            )
    reading.left_out.warn()
    return pa.Table.from_pylist([asdict(photo) for photo in _unique(rows, wanted)], PHOTO_SCHEMA)


def _unique(photos: Sequence[Photo], wanted: Counter[str]) -> Iterator[Photo]:
    """Make the stems of the photos unique: the second `dog` becomes `dog-2`."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for photo in photos:
        key = stem = photo.stem.casefold()
        while key in taken or (key != stem and key in wanted):
            numbers[stem] = max(numbers[stem], 1) + 1
            key = f"{stem}-{numbers[stem]}"
        taken.add(key)
        yield photo if key == stem else Photo(**asdict(photo) | {"stem": photo.stem + key[len(stem) :]})


def _is_text(name: str) -> bool:
    """Whether Parquet can hold a name; a file's name may have any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Reading:
    """Read sources, with settings for columns and for what to skip."""

    def __init__(self, column: str | None, group_column: str | None, out: str | None) -> None:
        self.column, self.group_column = column, group_column
        self.left_out = LeftOut(None)
        self._out = absolute(out).rstrip("/") if out is not None else None

    def photos(self, source: str) -> Iterator[Photo]:
        system, path = file_system(source)
        local = isinstance(system, LocalFileSystem)
        if any(sign in path for sign in "*?[") and not system.exists(path):
            fixed = path.rstrip("/").split("/")
            base = "/".join(fixed[: next(i for i, part in enumerate(fixed) if any(s in part for s in "*?["))])
            for match in sorted(system.glob(path)):
                if system.isdir(match):
                    yield from self._folder(system, match, base)
                elif self._is_taken(system, match, (*IMAGE_SUFFIXES, TABLE, TAR, LIST)):
                    yield from self._file(named(system, match), _relative(match, base))
        elif not local and PurePosixPath(path).suffix.lower() in _FILES:  # asking may need a download
            yield from self._file(source, PurePosixPath(path).name)
        elif system.isdir(path):
            yield from self._folder(system, path, path)
        elif local and not system.exists(path):
            raise SaliencyError(f"{source}: no such file or folder")
        else:
            yield from self._file(source, PurePosixPath(path).name)

    def _folder(self, system: Any, folder: str, base: str) -> Iterator[Photo]:
        files = [
            path
            for path in sorted(system.find(folder))
            if not any(part.startswith(".") for part in PurePosixPath(_relative(path, folder)).parts)
            and not self._is_result(system, path, folder)
        ]
        for endings in (IMAGE_SUFFIXES, {TABLE}, {TAR}):
            kept = [path for path in files if self._is_taken(system, path, endings)]
            for path in kept:
                yield from self._file(named(system, path), _relative(path, base))
            if kept:
                return

    def _is_taken(self, system: Any, path: str, endings: Collection[str]) -> bool:
        """Whether a file has one of the endings and is not skipped."""
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in (TABLE, TAR, LIST):
            return suffix in endings
        local = isinstance(system, LocalFileSystem)
        return not self.left_out.takes(Path(path), is_local=local) and suffix in endings

    def _is_result(self, system: Any, path: str, folder: str) -> bool:
        """Whether a file is in the output folder, and that folder is inside the one that is read."""
        if self._out is None or not f"{named(system, path)}/".startswith(f"{self._out}/"):
            return False
        if named(system, folder).rstrip("/") == self._out:
            return False
        if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES:
            self.left_out.add(LeftOut.OWN, Path(path))
        return True

    def _file(self, url: str, inner: str) -> Iterator[Photo]:
        """Return the photos of a file; `inner` is its path relative to the source."""
        ending = PurePosixPath(inner).suffix.lower()
        if ending == TABLE:
            yield from _table(url, self.column, self.group_column)
        elif ending == TAR:
            yield from _tar(url, self.left_out)
        elif ending == LIST:
            for line in _lines(read_bytes(url), url):
                yield _listed(line, url)
        else:
            yield Photo(url, _stem(inner), url.rpartition("/")[0], url)


def _lines(content: bytes, url: str) -> Iterator[str]:
    """Return the entries of a list. One that is not UTF-8 may have names as on disk, or of Windows."""
    try:
        lines = decode_text(content).split("\n")
    except UnicodeDecodeError:
        lines = []
        for raw in content.split(b"\n"):
            line = raw.decode("utf-8", "surrogateescape")
            known = os.path.exists(_placed(line.strip(), url))  # noqa: PTH110  # may hold any byte
            lines.append(line if known else raw.decode("cp1252", "replace"))
    return (line.strip() for line in lines if line.strip())


def _placed(entry: str, url: str) -> str:
    """Resolve an entry of the list or table at `url`, which may be relative to it."""
    return entry if is_url(entry) or entry.startswith("/") else f"{url.rpartition('/')[0]}/{entry}"


def _listed(entry: str, url: str, group: str | None = None) -> Photo:
    """Return the photo that a list or table at `url` names."""
    entry = _placed(entry, url)
    name = PurePosixPath(entry.partition("::")[0].partition("?")[0]).name
    return Photo(entry, _stem(name), entry.rpartition("/")[0] if group is None else group, entry)


def _tar(url: str, left_out: LeftOut) -> Iterator[Photo]:
    system, path = file_system(url)
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            inner = PurePosixPath(member.name)
            left = member.isfile() and left_out.takes(Path(member.name), is_local=False)
            if not left and member.isfile() and inner.suffix.lower() in IMAGE_SUFFIXES:
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
    """Yield the content of each photo, or the error, in order.

    The cells of a table are read forward from their group of rows, a few at a time.
    """
    cells = _Cells()
    for photo in photos:
        content: bytes | Exception
        try:
            if photo.column is not None:
                content = cells.read(photo)
            else:
                content = read_bytes(photo.url, photo.offset or 0, photo.size)
        except Exception as error:  # each backend has its own errors
            content = error
        yield photo, content
    cells.close()


class _Cells:
    """Read cells of tables; consecutive cells need one pass."""

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
