"""One client of an OpenAI-compatible API for a whole run, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

_T = TypeVar("_T")
_CLOSING_SECONDS = 2.0


class Connection:
    """Run coroutines that share one HTTP client, from any thread or loop.

    The thread starts with the first question and ends with the connection, or with the program.

    Args:
        url: address of the API.
        api_key: sent with every request.
        concurrent: maximum number of concurrent requests and TCP connections.
        retries: further tries of a request after a temporary failure.
        timeout: seconds that one try may take.
    """

    def __init__(self, url: str, api_key: str, *, concurrent: int, retries: int, timeout: float) -> None:
        self._arguments = url, api_key, concurrent, retries, timeout
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[Any] = []
        self.turn = asyncio.Semaphore(concurrent)

    def start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine in the connection's loop; cancelling the future cancels its requests."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(self._loop,), name="endpoint", daemon=True)
                thread.start()
                weakref.finalize(self, _close, self._loop, thread, self._clients)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to its end, even if the caller has its own loop (a notebook)."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def client(self) -> Any:
        """The client. Only code in this loop may use it."""
        if not self._clients:
            self._clients.append(_client(*self._arguments))
        return self._clients[0]


def _client(url: str, api_key: str, concurrent: int, retries: int, timeout: float) -> Any:
    from httpx2 import Limits
    from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

    class Client(AsyncOpenAI):
        # Do not send the machine and the Python version.
        def platform_headers(self) -> dict[str, str]:
            return {}

    return Client(
        base_url=url,
        api_key=api_key,
        max_retries=retries,
        timeout=timeout,
        http_client=DefaultAsyncHttpx2Client(
            limits=Limits(max_connections=concurrent, max_keepalive_connections=concurrent),
            # A proxy cannot reach this machine's loopback.
            trust_env=not _is_loopback(urlsplit(url).hostname or ""),
        ),
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, clients: list[Any]) -> None:
    if threading.current_thread() is thread:  # the last question ended after the connection
        loop.stop()
        return

    async def close() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for client in clients:
            await client.close()

    with suppress(Exception):
        asyncio.run_coroutine_threadsafe(close(), loop).result(_CLOSING_SECONDS)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_CLOSING_SECONDS)
