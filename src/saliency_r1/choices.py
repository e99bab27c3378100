"""A setting with a few values, each of which has a name."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from saliency_r1.errors import SaliencyError


class Choice(StrEnum):
    """A setting that is one of a few values. A value equals its name as a plain string."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the value with that name.

        Raises:
            SaliencyError: if there is no such value.
        """
        try:
            return cls(name)
        except ValueError:
            raise SaliencyError(
                f"unknown {cls.__name__.lower()} {name!r}: choose one of {', '.join(cls)}"
            ) from None
