"""Settings of a server: its address, its token and its limits."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from saliency_r1.errors import SaliencyError

TOKEN_VARIABLE = "SALIENCY_R1_TOKEN"
"""The environment variable with the token that every request must send."""

LEAST_TOKEN_CHARACTERS = 16


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of the number of accepted requests.

    Attributes:
        bytes: maximum size of a request's body.
        pixels: maximum pixels of a picture.
        images: maximum number of pictures in a request.
        seconds: maximum time from the first byte of a request to its answer.
        waiting: maximum number of accepted requests that are not answered yet; others get status 429.
    """

    bytes: int = 32_000_000
    pixels: int = 50_000_000
    images: int = 16
    seconds: float = 60.0
    waiting: int = 64


@dataclass(frozen=True)
class ServerSettings:
    """The address of a server, and what it requires of requests.

    Attributes:
        host: name or address to listen on.
        port: port to listen on; 0 for a free one.
        token: token that every request must send; None if none is required.
        limits: see `Limits`.
        accept_truncated: whether damaged pictures that end too early are read as far as they go.

    Raises:
        SaliencyError: if it would listen for other machines without a token, or the token is too short.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    limits: Limits = Limits()
    accept_truncated: bool = False

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
    """Return the token of the environment variable; None without one."""
    return os.environ.get(TOKEN_VARIABLE) or None
