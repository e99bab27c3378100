"""The Dockerfile, which is not built here: what it copies is there, what it starts exists."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import typer

from saliency_r1.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())


def test_what_it_copies_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_it_installs_what_was_tested_and_no_torch() -> None:
    assert "-c constraints.txt" in DOCKERFILE
    assert re.findall(r'"\.\[(\w+)\]"', DOCKERFILE) == ["serve"]


def test_it_runs_as_no_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["1000"]


def test_what_it_starts_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r'"\.\[(\w+)\]"', DOCKERFILE)) <= set(extras)
    started = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1]
    program, name, *arguments = json.loads(started)
    assert program == "saliency-r1"
    typer.main.get_command(app).get_command(None, name).make_context(name, arguments)
