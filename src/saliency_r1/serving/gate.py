"""Check every request before the app: its token, its origin and its size."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import time
from contextlib import AbstractContextManager, nullcontext, suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saliency_r1.serving.engine import Engine
from saliency_r1.serving.problems import Problem
from saliency_r1.serving.settings import ServerSettings

PAGE = "/page"
SALIENCY = "/v1/saliency"
OPEN = ("/healthz", "/readyz")
"""Paths without a token, because monitoring often has none."""

_KNOWN = (SALIENCY, "/v1/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/")
_DRAIN_SECONDS = 5.0
# The page's scripts and styles are its own files; pictures are shown from the browser's memory.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'self'; form-action 'self'; "
        b"base-uri 'self'",
    ),
)


class Gate:
    """ASGI middleware around the whole app.

    Args:
        app: the app behind it.
        engine: the engine; requests for masks take one of its places before their body is read.
        settings: token and limits.
    """

    def __init__(self, app: ASGIApp, engine: Engine, settings: ServerSettings) -> None:
        self.app = app
        self.engine = engine
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500
        path = scope["path"]
        masks = path == SALIENCY and scope["method"] == "POST"
        scope.setdefault("state", {})["deadline"] = (
            asyncio.get_running_loop().time() + self.settings.limits.seconds
        )

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_asker(scope, headers)
            place: AbstractContextManager[None] = self.engine.place() if masks else nullcontext()
            with place:
                self._check_size(headers)
                await self.app(scope, self._limited(scope, receive), send_noted)
        except Problem as problem:
            # Read the body first: many clients lose an answer that is sent before its end.
            if not self.engine.stopping.is_set():
                await self._drain(receive)
            await problem.response()(scope, receive, send_noted)
        finally:
            label = path if path in _KNOWN else PAGE if path.startswith(f"{PAGE}/") else "other"
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
            self.engine.metrics.requests.labels(method, label, status).inc()
            if masks:
                self.engine.metrics.seconds.observe(time.perf_counter() - start)

    def _check_asker(self, scope: Scope, headers: Headers) -> None:
        if self.settings.is_local and not _is_local_name(headers.get("host", "")):
            # A page of another site whose name was made to point here (DNS rebinding).
            raise Problem(421, "this server answers to localhost and 127.0.0.1 alone", "other-host")
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD"):
            raise Problem(403, "pages of other sites may not ask here", "other-site")
        token = self.settings.token
        if token is not None and scope["path"] not in OPEN and not _carries(headers, token):
            # Browsers then ask for a password: any user name, and the token.
            api = scope["path"].startswith("/v1/")
            challenge = "Bearer" if api else 'Basic realm="saliency-r1", charset="UTF-8"'
            raise Problem(
                401,
                "send the server's token: 'Authorization: Bearer TOKEN'",
                "no-token",
                headers={"WWW-Authenticate": challenge},
            )

    def _check_size(self, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.settings.limits.bytes:
            raise self._too_large()

    def _too_large(self) -> Problem:
        most = self.settings.limits.bytes
        return Problem(413, f"the request is larger than the limit, {most} bytes", "too-large", limit=most)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        received = 0
        whole = False

        async def limited() -> Message:
            nonlocal received, whole
            if whole:  # signals that the client disconnects, or that the server stops
                return await self._until(receive, self.engine.emptied) or {"type": "http.disconnect"}
            try:
                async with asyncio.timeout_at(scope["state"]["deadline"]):
                    message = await self._arriving(receive)
            except TimeoutError:
                raise Problem(408, "the request took longer than the limit to arrive", "slow") from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self.settings.limits.bytes:
                if not whole:
                    await self._drain(receive)
                raise self._too_large()
            return message

        return limited

    async def _arriving(self, receive: Receive) -> Message:
        """Return the next part of a body; an unfinished request is dropped when the server stops.

        Raises:
            Problem: 503 if the server stops before the part arrives.
        """
        message = await self._until(receive, self.engine.stopping)
        if message is None:
            raise Problem(
                503, "the server is stopping, and the request was not whole", "stopping", retry_after=5
            )
        return message

    async def _until(self, receive: Receive, event: asyncio.Event) -> Message | None:
        """Return the next message, or None if the event comes first."""
        receiving = asyncio.ensure_future(receive())
        coming = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((receiving, coming), return_when=asyncio.FIRST_COMPLETED)
            return receiving.result() if receiving.done() else None
        finally:
            receiving.cancel()
            coming.cancel()

    async def _drain(self, receive: Receive) -> None:
        """Read the rest of a body, up to the limit again and for a few seconds."""
        left = self.settings.limits.bytes
        with suppress(TimeoutError, Problem):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while left > 0:
                    message = await self._arriving(receive)
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return


def _is_local_name(host: str) -> bool:
    name = host if host.endswith("]") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _carries(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())
