"""What works in the light installation, without torch: the first command of the README.

The packages of other extras are hidden from a process of its own, so that this tests the same where they are
installed. `.ci/run` also runs these tests where they are not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_r1.photos import FOLDER, GROUP, SINGLE

HIDDEN = (
    "torch",
    "transformers",
    "safetensors",
    "skimage",
    "scipy",
    "cv2",
    "py_sod_metrics",
    "sklearn",
    "trl",
)
HIDE = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN!r}))\n"
"""An import of one of these then fails."""


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = f"from saliency_r1.cli import main; sys.exit(main({list(arguments)!r}))"
    done = subprocess.run([sys.executable, "-c", HIDE + command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("module", ["pipeline", "cli.predict", "cli.reporting", "cli.cutout", "matting"])
def test_the_library_is_imported_without_torch(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{HIDE}import saliency_r1.{module}"], check=False)
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--fast",), (), ("--task", "sis"), ("--find", "the cat")])
def test_a_photo_is_done(tmp_path: Path, options: tuple[str, ...]) -> None:
    run("predict", str(FOLDER / "chelsea.jpg"), "--out", str(tmp_path), *options)
    written = json.loads((tmp_path / "chelsea.json").read_text())
    assert written["expressions"] == ["the cat"]
    mask = np.asarray(Image.open(tmp_path / "chelsea_mask.png"))
    assert mask.shape == (300, 451)
    assert 0.3 < (mask > 127).mean() < 0.9


@pytest.mark.slow
def test_the_demo_does_all_tasks(tmp_path: Path) -> None:
    run("demo", "--fast", "--out", str(tmp_path))
    names = {path.stem.removesuffix("_mask") for path in tmp_path.rglob("*_mask.png")}
    assert names == {Path(name).stem for name in (*SINGLE, *GROUP)}
    assert (tmp_path / "demo.jpg").is_file()


@pytest.mark.slow
def test_hair_is_cut_out(tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    run("cutout", str(FOLDER / "chelsea.jpg"), str(out), "--matting")
    alpha = np.asarray(Image.open(out).getchannel("A"))
    assert ((alpha > 10) & (alpha < 245)).any()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("predict", "{photo}", "--runtime", "torch"), "torch"),
        (("predict", "{photo}", "--segmenter", "clipseg"), "torch"),
        (("predict", "{photo}", "--policy", "{folder}"), "torch"),
        (("export", "nano", "--out", "{folder}/model"), "torch"),
        (("evaluate", "sod", "--data", "{folder}", "--model", "nano", "--out", "{folder}/run"), "evaluate"),
        (("compare", "{folder}/one", "{folder}/other"), "evaluate"),
        (("train", "sft", "--config", "{folder}/sft.yaml"), "train"),
    ],
)
def test_a_missing_extra_is_one_line(arguments: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    photo = str(FOLDER / "coffee.jpg")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    given = [each.format(photo=photo, folder=tmp_path) for each in arguments]
    done = run(*given, *(("--out", str(tmp_path / "out")) if arguments[0] == "predict" else ()), code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"[{extra}]'" in done.stderr
