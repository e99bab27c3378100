"""A server of chat completions on loopback that behaves as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # connections stay open, as those of real servers do

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.requests.append(json.loads(body))
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            number = len(self.server.requests)
        try:
            self.server.behave(self, number)
        except OSError:  # the client has left
            self.close_connection = True

    def do_GET(self) -> None:
        """The list of models, by which a server tells what it is."""
        entry = {"id": "m", "object": "model", "created": 1, "owned_by": self.server.kind}
        self.answer({"object": "list", "data": [entry]})

    def answer(
        self, body: bytes | str | object, status: int = 200, kind: str = "application/json", **more: str
    ) -> None:
        content = (
            body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else dumped(body)
        )
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def say(self, text: str | None, **more: object) -> None:
        self.answer(completion(text, **more))

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Behaves as a function of handler and request number says, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, behave: Callable[[Handler, int], object]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.kind = "vllm"
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def get_request(self) -> Any:
        accepted = super().get_request()
        self.connections += 1
        return accepted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def serving(behave: Callable[[Handler, int], object]) -> Iterator[Server]:
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def dumped(content: object) -> bytes:
    return json.dumps(content).encode()


def completion(text: str | None, **more: object) -> dict[str, object]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **more}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
