"""A sample of the benchmark's damaged pictures: none crashes, hangs, or fails but in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT, module_at

fuzz_images = module_at("benchmarks/fuzz_images.py")
COUNT = 2000


def test_every_format_is_damaged() -> None:
    kinds = {name.partition(" ")[0] for name in fuzz_images.originals()}
    assert {"jpeg", "png", "webp", "gif", "tiff", "bmp", "ppm", "avif", "jpeg2000"} <= kinds


def test_the_originals_are_read() -> None:
    for name, content in fuzz_images.originals().items():
        assert fuzz_images.outcome(content, accept_truncated=False) == fuzz_images.READ, name


def test_pictures_are_the_same_for_the_same_seed() -> None:
    assert [fuzz_images.damaged(number) for number in range(50)] == [
        fuzz_images.damaged(number) for number in range(50)
    ]
    assert fuzz_images.damaged(3, seed=1) != fuzz_images.damaged(3, seed=2)


@pytest.mark.slow
def test_damaged_pictures_are_read_or_refused_within_bounds(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/fuzz_images.py", "--count", str(COUNT), "--seed", "7"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stdout
    *_, last = done.stdout.splitlines()
    assert last.startswith(f"{COUNT:,} pictures of seed 7 from 0 on, 0 failures, ")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    numbers = [[int(cell.replace(",", "")) for cell in row[1:]] for row in rows]
    pictures, read, refused, failed = map(sum, zip(*numbers, strict=True))
    assert (pictures, failed) == (COUNT, 0)
    assert read > COUNT / 5
    assert refused > COUNT / 5


def test_what_goes_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import saliency_r1.images

    def broken(*_: object, **__: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(saliency_r1.images, "load_layers", broken)
    content = fuzz_images.originals()["png RGB"]
    assert fuzz_images.outcome(content, accept_truncated=False) == "ValueError: unforeseen"
    done = fuzz_images.Done(1, "png RGB", "read", 11.0, 0)
    assert fuzz_images.is_failure(done)
    assert fuzz_images.is_failure(fuzz_images.Done(1, "png RGB", "read", 0.1, 3 << 30))
