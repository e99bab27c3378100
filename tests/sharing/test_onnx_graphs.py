"""Graphs that are written for onnxruntime: small, complete, and compared with torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

import tiny_policies
from saliency_r1 import nano
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.runtime import NAMES, POLICY_GRAPHS, SEGMENTER_GRAPHS
from saliency_r1.sharing.onnx_check import check_graphs

pytestmark = pytest.mark.slow


def test_graphs_read_the_weights_that_are_there(onnx_model: Path) -> None:
    names = {path.name for path in onnx_model.rglob("*.onnx")}
    assert names == {"vision.onnx", "language.onnx", "names.onnx", "encode.onnx", "segment.onnx"}
    assert sum(path.stat().st_size for path in onnx_model.rglob("*.onnx")) < 2.5e6
    weights = nano.POLICY_FOLDER / "model.safetensors"
    assert (onnx_model / "model.safetensors").stat().st_size == weights.stat().st_size


@pytest.mark.parametrize("name", [*POLICY_GRAPHS, NAMES, *(f"segmenter/{name}" for name in SEGMENTER_GRAPHS)])
def test_the_graphs_of_the_package_are_those_of_its_weights(onnx_model: Path, name: str) -> None:
    """They are compared with torch when they are written; `recipes/nano/run.sh graphs` writes them again."""
    folder = nano.EMBEDDED_SEGMENTER if name.startswith("segmenter/") else nano.POLICY_FOLDER
    assert (folder / Path(name).name).read_bytes() == (onnx_model / name).read_bytes()
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (onnx_model / name).with_name("model.safetensors").read_bytes()


def test_what_is_not_the_same_is_found(onnx_model: Path, tmp_path: Path) -> None:
    """A graph that reads one tensor in another's place makes other masks."""
    folder = shutil.copytree(onnx_model / "segmenter", tmp_path / "segmenter")
    model = onnx.load(folder / "segment.onnx", load_external_data=False)
    held = {each.name: each for each in model.graph.initializer}
    first, second = (held[f"model.refine2.{block}.first.weight.stored"] for block in (0, 1))
    offsets = [entry for each in (first, second) for entry in each.external_data if entry.key == "offset"]
    offsets[0].value, offsets[1].value = offsets[1].value, offsets[0].value
    (folder / "segment.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SaliencyError, match="masks differ from torch's by"):
        check_graphs(onnx_model, folder)


def test_only_a_nano_policy_has_graphs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_policies.qwen2_5_vl(tmp_path / "policy")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "policy"), "--out", str(out), "--format", "onnx"]) == 2
    assert "is no nano policy, and graphs are written of these alone" in capfd.readouterr().err
    assert not out.exists()
