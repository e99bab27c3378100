"""Write files so that a reader, or a run that was killed, never sees an incomplete one."""

from __future__ import annotations

import codecs
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from saliency_r1.errors import OutputError, SaliencyError, one_line


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears at `path` only if the block succeeds.

    The folder is created if necessary. The data go to a hidden file beside `path`, which replaces `path` in
    one step. If the block raises, the hidden file is removed and an older file at `path` is not changed.

    Args:
        path: the file to write.

    Yields:
        The file, open for writing and seekable.

    Raises:
        OutputError: if the file cannot be written; the message names it and the reason.

    Example:
        >>> with open_atomic("out/dog_mask.png") as file:  # doctest: +SKIP
        ...     picture.save(file, format="PNG")
    """
    target = Path(path)
    # Not derived from the target's name, which may already have the maximum length.
    unfinished = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: only the owner can read its files, and these should follow the umask.
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(target)
    except OSError as error:
        _remove(unfinished)
        reason = f"{printable(str(target))}: cannot be written ({one_line(error)})"
        raise OutputError(reason, error.errno) from error
    except BaseException:
        _remove(unfinished)
        raise


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` in one step: afterwards the file is complete, or unchanged.

    Raises:
        OutputError: if the file cannot be written; the message names it and the reason.
    """
    with open_atomic(path) as file:
        file.write(data)


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: it begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Read a text file, see `decode_text`.

    Raises:
        SaliencyError: if it cannot be read, or is not UTF-8 and has no byte-order mark.
    """
    try:
        return decode_text(Path(path).read_bytes())
    except OSError as error:
        raise SaliencyError(f"{path}: cannot be read ({one_line(error)})") from None
    except UnicodeDecodeError:
        raise SaliencyError(f"{path}: cannot be read (is not UTF-8; save it as UTF-8)") from None


def decode_text(content: bytes) -> str:
    """Decode the content of a text file: UTF-8, or as its byte-order mark says, which is removed.

    Raises:
        UnicodeDecodeError: if that fails.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode()


def make_folder(path: str | Path) -> Path:
    """Make a folder for output, if it does not exist.

    Raises:
        SaliencyError: if it is a file, or cannot be created or written to.
    """
    folder = Path(path)
    name = printable(str(folder))
    try:
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                what = printable(str(place))
                raise SaliencyError(f"{what}: is a file, and results go to a folder; give another --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaliencyError(f"{name}: cannot be made ({one_line(error)}); give another --out") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SaliencyError(f"{name}: cannot be written to; give another --out")
    return folder


def printable(name: str) -> str:
    """Return a name on one line, even if it has a line break or another control character in it."""
    return name if name.isprintable() else repr(name)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
