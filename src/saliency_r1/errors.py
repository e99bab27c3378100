"""The errors that a user can cause, and the exit code of each."""

from __future__ import annotations


class SaliencyError(Exception):
    """Bad input. The message is one line: what was given, what is expected, what to do.

    The command line prints the message alone and leaves with `exit_code`.
    """

    exit_code = 2


class ImageError(SaliencyError):
    """A picture that cannot be read; the message names the file and the reason."""

    exit_code = 1


class ImageSizeError(ImageError):
    """A picture of more pixels than the limit."""


class ResponseError(SaliencyError):
    """A response text that is not of the form the task asks for."""

    exit_code = 1


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, or its type's name if it says nothing.

    Of an error of the operating system it is the reason alone: the message names the file already.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
