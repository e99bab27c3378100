"""Read and write files of a folder or of any place that fsspec knows, by path or URL."""

from __future__ import annotations

import posixpath
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.files import write_bytes_atomic

MAX_FILE_BYTES = 512_000_000
"""Maximum number of bytes that are read of one picture."""


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path within it.

    Raises:
        SaliencyError: if fsspec does not know it, or its package is missing.
    """
    try:
        system, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise SaliencyError(f"{url}: cannot be reached ({one_line(error)})") from error
    return system, path


def is_url(text: str) -> bool:
    """Whether it has a protocol (`s3://`) or a chain of them."""
    return "::" in text or split_protocol(text)[0] is not None


def absolute(text: str) -> str:
    """Return a URL unchanged, or a local path made absolute."""
    return text if is_url(text) else str(Path(text).absolute())


def named(system: Any, path: str) -> str:
    """Return the name of a file of a listing: its path if it is local, otherwise its URL."""
    return path if isinstance(system, LocalFileSystem) else str(system.unstrip_protocol(path))


def read_bytes(url: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read a file, or `size` bytes of it from `offset` on.

    Raises:
        OSError: if it cannot be read or is larger than `MAX_FILE_BYTES`; other backends of fsspec raise
            their own errors.
    """
    if size is not None and size > MAX_FILE_BYTES:
        raise OSError(f"{size:,} bytes, the limit is {MAX_FILE_BYTES:,}")
    system, path = file_system(url)
    with system.open(path, "rb") as file:
        if offset:
            file.seek(offset)
        content: bytes = file.read(MAX_FILE_BYTES + 1 if size is None else size)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(f"more than {MAX_FILE_BYTES:,} bytes")
    return content


class Folder:
    """A folder for output, local or at a URL.

    Args:
        url: path or URL.

    Raises:
        SaliencyError: if it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._system, self._path = file_system(url)
        self._local = isinstance(self._system, LocalFileSystem)

    def names(self) -> list[str]:
        """Return the names of the files in it, without sub-folders; none if it does not exist.

        Raises:
            SaliencyError: if it cannot be listed.
        """
        with suppress(Exception):
            self._system.invalidate_cache()
        try:
            found = self._system.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise SaliencyError(f"{self.url}: cannot be listed ({one_line(error)})") from error
        return sorted(posixpath.basename(str(each).rstrip("/")) for each in found)

    def open(self, name: str) -> Any:
        """Open a file in it for reading."""
        return self._system.open(posixpath.join(self._path, name), "rb")

    def write(self, name: str, content: bytes) -> None:
        """Write a file that appears when it is complete; `name` may have sub-folders.

        Raises:
            SaliencyError: if it cannot be written.
        """
        target = posixpath.join(self._path, name)
        if self._local:
            write_bytes_atomic(target, content)
            return
        unfinished = posixpath.join(posixpath.dirname(target), f".{secrets.token_hex(8)}.tmp")
        try:
            self._system.makedirs(posixpath.dirname(target), exist_ok=True)
            self._system.pipe_file(unfinished, content)
            self._system.mv(unfinished, target)
        except Exception as error:
            with suppress(Exception):
                self._system.rm(unfinished)
            raise SaliencyError(f"{self.url}/{name}: cannot be written ({one_line(error)})") from error

    def remove_unfinished(self) -> None:
        """Remove the hidden files of a killed run, recursively."""
        try:
            found = self._system.find(self._path)
        except FileNotFoundError:
            return
        for path in found:
            name = posixpath.basename(path)
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(Exception):
                    self._system.rm(path)
