"""The nano model without torch: what is imported, and which runtime is taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_r1 import SaliencyError, SaliencyPipeline
from saliency_r1.cli import main
from saliency_r1.masks import iou
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.runtime import Runtime, threads
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.segmenters.onnx import OnnxSegmenter
from test_light import HIDE


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "coffee.jpg"
    Image.fromarray(data.coffee()).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--fast",), (), ("--task", "sis"), ("--task", "cosod")])
def test_photos_are_done_without_torch(onnx_model: Path, photo: Path, arguments: tuple[str, ...]) -> None:
    out = photo.parent / "out"
    Image.open(photo).rotate(10).save(photo.with_name("turned.jpg"))
    photos = [str(photo), str(photo.with_name("turned.jpg"))]
    command = ["predict", *photos, "--policy", str(onnx_model), "--out", str(out), *arguments]
    run(f"from saliency_r1.cli import main; sys.exit(main({command!r}))")
    wanted = photo.parent / "wanted"
    assert main([*command, "--out", str(wanted), "--runtime", "torch"]) == 0
    for name in ("coffee", "turned"):
        one, other = (json.loads((folder / f"{name}.json").read_text()) for folder in (out, wanted))
        assert one["reasoning"] == other["reasoning"]
        assert one["expressions"] == other["expressions"] != []
        masks = [np.asarray(Image.open(folder / f"{name}_mask.png")) > 127 for folder in (out, wanted)]
        assert iou(*masks) > 0.99


@pytest.mark.slow
def test_auto_takes_graphs_where_they_are(onnx_model: Path, tmp_path: Path) -> None:
    pipe = SaliencyPipeline.from_pretrained(onnx_model)
    assert isinstance(pipe.policy, OnnxPolicy)
    assert isinstance(pipe.segmenter, OnnxSegmenter)
    assert pipe.device == "cpu"
    pipe = SaliencyPipeline.from_pretrained(onnx_model, runtime="torch", device="cpu")
    assert isinstance(pipe.policy, TransformersPolicy)
    assert isinstance(pipe.segmenter, NanoSegmenter)
    # The type of weights in memory is torch's.
    options = PolicyOptions(dtype="bfloat16")
    pipe = SaliencyPipeline.from_pretrained(onnx_model, device="cpu", policy_options=options)
    assert isinstance(pipe.policy, TransformersPolicy)
    with pytest.raises(SaliencyError, match="dtype is an option of the runtime torch"):
        SaliencyPipeline.from_pretrained(onnx_model, policy_options=options, runtime="onnx")
    with pytest.raises(SaliencyError, match="no device 'cuda:3'"):
        SaliencyPipeline.from_pretrained(onnx_model, device="cuda:3", runtime="onnx")


def test_what_cannot_be_run_is_said_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="unknown runtime 'tvm': choose one of auto, torch, onnx"):
        SaliencyPipeline.from_pretrained(runtime="tvm")
    with pytest.raises(SaliencyError, match=r"has no vision.onnx: .*--format onnx"):
        SaliencyPipeline.from_pretrained(tmp_path, runtime=Runtime.ONNX)
    (tmp_path / "vision.onnx").write_bytes(b"none")
    (tmp_path / "language.onnx").write_bytes(b"none")
    with pytest.raises(SaliencyError, match=r"tokenizer\.json: is no tokenizer"):
        SaliencyPipeline.from_pretrained(tmp_path, runtime=Runtime.ONNX)


def test_the_threads_are_those_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= threads() <= 8
