"""The errors that a user can cause, and the exit code of each."""

from __future__ import annotations

import errno

_NO_MORE_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


class SaliencyError(Exception):
    """Bad input. The message is one line: what was given, what is expected, what to do.

    The command line prints only the message and exits with `exit_code`.
    """

    exit_code = 2


class ImageError(SaliencyError):
    """A picture cannot be read; the message names the file and the reason."""

    exit_code = 1


class ImageSizeError(ImageError):
    """A picture has more pixels than the limit."""


class OutputError(SaliencyError):
    """A file cannot be written.

    Args:
        message: one line that names the file and the reason.
        number: the system's error number, if there is one.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number

    def __reduce__(self) -> tuple[type[OutputError], tuple[str, int | None]]:
        return OutputError, (str(self), self.number)

    @property
    def ends_the_run(self) -> bool:
        """Whether other files cannot be written either: the disk is full, broken or read-only."""
        return self.number in _NO_MORE_FILES


class ResponseError(SaliencyError):
    """A response text does not have the form that the task asks for."""

    exit_code = 1


def one_line(error: object) -> str:
    """Return the text of an error on one line, or its type's name if it has no text.

    For an error of the operating system it is only the reason, because our message names the file.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
