"""Writing files so that a reader, or a run that was killed, never meets half of one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from saliency_r1.errors import SaliencyError, one_line


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes its place at `path` only when the block ends well.

    The folder is made if need be. What is written goes to a hidden file beside `path`, which replaces `path`
    in one step. If the block raises, the hidden file is removed and an older file at `path` stays as it was.

    Args:
        path: the file to write.

    Yields:
        The file, open for writing and seekable.

    Raises:
        SaliencyError: if the file cannot be written; the message names it and the reason.

    Example:
        >>> with open_atomic("out/dog_mask.png") as file:  # doctest: +SKIP
        ...     picture.save(file, format="PNG")
    """
    target = Path(path)
    # A name of its own, not one derived from the target's, which may already have the longest length allowed.
    unfinished = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its files are readable by their owner alone, and these are to follow the umask.
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(target)
    except OSError as error:
        _remove(unfinished)
        raise SaliencyError(f"{target}: cannot be written ({one_line(error)})") from error
    except BaseException:
        _remove(unfinished)
        raise


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` in one step: afterwards the file is whole, or as it was before.

    Raises:
        SaliencyError: if the file cannot be written; the message names it and the reason.
    """
    with open_atomic(path) as file:
        file.write(data)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
