"""What a server is told: where it listens, who may ask, and how much at once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from saliency_r1.errors import SaliencyError

TOKEN_VARIABLE = "SALIENCY_R1_TOKEN"
"""The environment variable that holds the token, which every request must then carry."""

LEAST_TOKEN_CHARACTERS = 16


@dataclass(frozen=True)
class Limits:
    """What one request may be, and how many of them are taken at a time.

    Attributes:
        bytes: of the body of a request.
        pixels: of each picture.
        images: of a request.
        seconds: from the first byte of a request to its answer.
        waiting: requests that are taken and not answered yet; further ones are told to come again.
    """

    bytes: int = 32_000_000
    pixels: int = 50_000_000
    images: int = 16
    seconds: float = 60.0
    waiting: int = 64


@dataclass(frozen=True)
class ServerSettings:
    """Where a server listens and what it asks of its callers.

    Attributes:
        host: name or address.
        port: 0 for a free one.
        token: that every request must carry; None where none is asked.
        limits: see `Limits`.

    Raises:
        SaliencyError: if it would listen beyond this machine without a token, or the token is short.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.token is None and not self.is_local:
            raise SaliencyError(
                f"--host {self.host} is open to other machines: set a token in the environment variable "
                f"{TOKEN_VARIABLE}, or listen on 127.0.0.1"
            )
        if self.token is not None and (
            len(self.token) < LEAST_TOKEN_CHARACTERS
            or not self.token.isascii()
            or not self.token.isprintable()
        ):
            raise SaliencyError(
                f"{TOKEN_VARIABLE} is no good token: give at least {LEAST_TOKEN_CHARACTERS} printable ASCII "
                "characters, such as `openssl rand -hex 32` prints"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def token_from_environment() -> str | None:
    """The token that the environment names, None without one."""
    return os.environ.get(TOKEN_VARIABLE) or None
