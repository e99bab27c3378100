"""Stopping a server: at once for what is not whole, never without an answer for what is, no traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from processes import interruptible
from running_server import photo, serving

HALF_SENT = 20
BOUND_SECONDS = 3.0


def half_sent(port: int, path: str = "/v1/saliency") -> socket.socket:
    """A connection whose request has its head and half of its body."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\nsod\r\n'
        b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + photo() + b"\r\n--x--\r\n"
    )
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def answered(connection: socket.socket) -> bytes:
    """All that comes back until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    return b"".join(parts)


def test_half_sent_uploads_do_not_hold_up_the_stop_and_whole_ones_are_answered() -> None:
    with serving() as (client, server):
        port = client.base_url.port
        assert port is not None
        open_ones = [half_sent(port) for _ in range(HALF_SENT)]
        beginning = socket.create_connection(("127.0.0.1", port), timeout=30)
        beginning.sendall(b"POST /v1/saliency HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        slow = half_sent(port, "/v1/models")
        while server.engine.taken < HALF_SENT:
            time.sleep(0.01)
        with ThreadPoolExecutor(1) as pool:
            files = {"images": ("cat.jpg", photo(), "image/jpeg")}
            whole = pool.submit(client.post, "/v1/saliency", data={"task": "sod"}, files=files)
            while server.engine.taken < HALF_SENT + 1 and not whole.done():
                time.sleep(0.005)
            server.leave()
            assert whole.result().status_code == 200
        start = time.monotonic()
        while server.servers and any(each.is_serving() for each in server.servers):
            time.sleep(0.01)
        answers = [answered(each) for each in open_ones]
        assert answered(beginning) == b""
        slow.close()
        for answer in answers:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            problem = json.loads(body)
            assert problem["type"] == "urn:problem:saliency-r1:stopping"
            assert "was not whole" in problem["detail"]
        assert time.monotonic() - start < BOUND_SECONDS


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_server_that_still_loads_its_model_leaves_at_once(signals: list[signal.Signals]) -> None:
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0", "--no-page"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": ""}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                assert client.get("/readyz").status_code == 503
            waiting = half_sent(int(url.rpartition(":")[2]))
            start = time.monotonic()
            for number in signals:
                process.send_signal(number)
                time.sleep(0.05)
            said = process.stderr.read()
            code = process.wait(60)
            assert time.monotonic() - start < BOUND_SECONDS
            waiting.close()
            assert said == ""
            assert code == 128 + signals[0]
        finally:
            process.kill()


@pytest.mark.slow
def test_open_pages_and_what_they_ask_do_not_hold_up_the_stop() -> None:
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": ""}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            port = int(url.rpartition(":")[2])
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.1)
            page = socket.create_connection(("127.0.0.1", port), timeout=30)
            page.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            shown = b""
            while b"<!doctype html>" not in shown:  # the headers may come in a packet of their own
                received = page.recv(65536)
                assert received, shown
                shown += received
            uploads = [half_sent(port) for _ in range(HALF_SENT)]
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            process.wait(60)
            assert time.monotonic() - start < BOUND_SECONDS
            assert said == ""
            for connection in (page, *uploads):
                connection.close()
        finally:
            process.kill()
