"""The server: API, page and engine together, with a stop that answers all accepted requests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import uvicorn
from fastapi import FastAPI
from PIL import Image

from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.serving.api import create_api
from saliency_r1.serving.engine import Engine, State
from saliency_r1.serving.gate import Gate
from saliency_r1.serving.page import add_page
from saliency_r1.serving.settings import ServerSettings
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline

_CLOSING_SECONDS = 2
_BACKLOG = 512
_INTERRUPTED = 128 + signal.SIGINT


def create_app(engine: Engine, settings: ServerSettings, *, page: bool = True) -> Gate:
    """Make the ASGI app of API and page, whose lifespan starts and stops the engine.

    Args:
        engine: the engine, not started yet.
        settings: token and limits.
        page: whether to serve the page too.
    """
    api = create_api(engine, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop)

    api.router.lifespan_context = lifespan
    if page:
        add_page(api)
    return Gate(api, engine, settings)


class Server(uvicorn.Server):
    """A server of uvicorn that answers all accepted requests before it stops.

    Args:
        config: uvicorn's configuration.
        engine: the engine that answers.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self.engine = engine
        engine.on_failure = self.leave

    def leave(self) -> None:
        """Stop as after a signal."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal.

        While the model is being loaded no request can be waiting: then, and at a second Ctrl-C, the process
        exits at once.
        """
        if self.engine.state == State.LOADING or (self.should_exit and sig == signal.SIGINT):
            self.leave_at_once(128 + sig)
        super().handle_exit(sig, frame)

    def leave_at_once(self, code: int) -> NoReturn:
        """End the process without waiting for threads; torch does not let all of them end properly."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()  # no new clients
        drained = asyncio.create_task(self.engine.drained())
        while not (drained.done() or self.force_exit):
            await asyncio.wait([drained], timeout=0.1)
        drained.cancel()
        await super().shutdown(sockets)


def serve(
    load: Callable[[], SaliencyPipeline],
    settings: ServerSettings,
    *,
    page: bool = True,
    announce: Callable[[str], None] = lambda url: None,
) -> None:
    """Run a server until SIGINT or SIGTERM, or until its model cannot be loaded.

    Args:
        load: loads the pipeline, in the background; the page is available before.
        settings: address, token and limits.
        page: whether to serve the page too.
        announce: called with the address when it can be reached.

    Raises:
        SaliencyError: if the address is not available, or the model cannot be loaded.
    """
    keep_memory_flat()
    listener = _listen(settings)
    with listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        engine = Engine(load, waiting=settings.limits.waiting, accept_truncated=settings.accept_truncated)
        app = create_app(engine, settings, page=page)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
        )
        announce(f"http://{shown}:{port}")
        code = 0
        server = Server(config, engine)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            code = _INTERRUPTED
        if engine.is_busy:
            server.leave_at_once(code)
        if code:
            raise KeyboardInterrupt
    if engine.error is not None:
        if isinstance(engine.error, SaliencyError):
            raise engine.error
        raise SaliencyError(f"the model cannot be loaded: {engine.error}") from engine.error


def warm_up(pipe: SaliencyPipeline) -> None:
    """Run the model once, so that the work of a first call is done before the first request."""
    for task in (Task.SOD, Task.SIS):
        pipe(Image.new("RGB", (64, 48), "grey"), task)


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise SaliencyError(
            f"{settings.host}:{settings.port}: cannot listen there ({one_line(error)}); "
            "choose another --port or --host"
        ) from error
    return listener


def keep_memory_flat() -> None:
    """Make glibc keep few arenas: with one for each thread, the process keeps their freed memory."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    arena_max, arenas = -8, 2
    mallopt(arena_max, arenas)
