"""`serve --open`: the address reaches the browser that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import interruptible
from saliency_r1.cli import main


def test_the_browser_is_given_the_address(tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0", "--open"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": "", "BROWSER": f"{browser} %s"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            end = time.monotonic() + 30
            while not (asked.exists() and asked.read_text()) and time.monotonic() < end:
                time.sleep(0.05)
            assert asked.read_text() == f"{url}\n"
        finally:
            process.kill()


def test_there_is_nothing_to_open_without_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--open", "--no-page"]) == 2
    assert "--open and --no-page exclude each other" in capsys.readouterr().err
