"""Servers for tests: the real one with the real nano model, on a free port of loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image

from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.serving.engine import Engine
from saliency_r1.serving.server import Server, create_app
from saliency_r1.serving.settings import Limits, ServerSettings

FOLDER = Path(str(files("skimage.data")))


@cache
def nano() -> SaliencyPipeline:
    return SaliencyPipeline.from_pretrained()


def photo(name: str = "chelsea.png", side: int = 160, kind: str = "JPEG") -> bytes:
    """A photo of scikit-image, made small, as a file's content."""
    buffer = BytesIO()
    with Image.open(FOLDER / name) as image:
        image.thumbnail((side, side))
        image.convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@contextmanager
def serving(
    load: Callable[[], SaliencyPipeline] = nano,
    token: str | None = None,
    wait: bool = True,
    accept_truncated: bool = False,
    **limits: Any,
) -> Iterator[tuple[httpx.Client, Server]]:
    """The API behind a client, with these limits; stopped gracefully at the end."""
    settings = ServerSettings(port=0, token=token, limits=Limits(**limits), accept_truncated=accept_truncated)
    engine = Engine(load, waiting=settings.limits.waiting, accept_truncated=settings.accept_truncated)
    app = create_app(engine, settings, page=False)
    server = Server(uvicorn.Config(app, port=0, log_level="error"), engine)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 300
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150, trust_env=False) as client:
            while wait and client.get("/readyz").status_code != 200 and time.monotonic() < end:
                time.sleep(0.02)
            assert time.monotonic() < end, "the model did not come"
            yield client, server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
