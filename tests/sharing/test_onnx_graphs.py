"""Graphs that are written for onnxruntime: small, complete, and compared with torch."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import tiny_policies
from saliency_r1 import nano
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.photos import FOLDER, SINGLE
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.response import parse_lenient
from saliency_r1.runtime import LANGUAGE, NAMES, POLICY_GRAPHS, SEGMENTER_GRAPHS
from saliency_r1.sharing.export import Export, export
from saliency_r1.sharing.onnx_check import EIGHT_BITS_CONFIDENCE, check_graphs
from saliency_r1.sharing.onnx_eight_bits import eight_bits
from saliency_r1.tasks import Task

pytestmark = pytest.mark.slow


def test_graphs_read_the_weights_that_are_there(onnx_model: Path) -> None:
    names = {path.name for path in onnx_model.rglob("*.onnx")}
    assert names == {"vision.onnx", "language.onnx", "names.onnx", "encode.onnx", "segment.onnx"}
    assert sum(path.stat().st_size for path in onnx_model.rglob("*.onnx")) < 2.5e6
    weights = nano.POLICY_FOLDER / "model.safetensors"
    assert (onnx_model / "model.safetensors").stat().st_size == weights.stat().st_size


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as `recipes/nano/run.sh graphs` writes it."""
    return export(Export("nano", tmp_path_factory.mktemp("graphs") / "model", graphs=True, eight_bits=True))


@pytest.mark.parametrize("name", [*POLICY_GRAPHS, NAMES, *(f"segmenter/{name}" for name in SEGMENTER_GRAPHS)])
def test_the_graphs_of_the_package_are_those_of_its_weights(embedded: Path, name: str) -> None:
    """They are compared with torch when they are written."""
    folder = nano.EMBEDDED_SEGMENTER if name.startswith("segmenter/") else nano.POLICY_FOLDER
    assert (folder / Path(name).name).read_bytes() == (embedded / name).read_bytes()
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (embedded / name).with_name("model.safetensors").read_bytes()


def test_only_feed_forward_layers_have_eight_bits(embedded: Path, onnx_model: Path) -> None:
    def products(folder: Path) -> Counter[str]:
        graph = onnx.load(str(folder / LANGUAGE), load_external_data=False).graph
        return Counter(node.op_type for node in graph.node)

    plain, eight = products(onnx_model), products(embedded)
    layers = 3 * NanoConfig.from_pretrained(str(nano.POLICY_FOLDER)).text_config.num_hidden_layers
    assert (plain["MatMulNBits"], eight["MatMulNBits"]) == (0, layers)
    assert plain["MatMul"] - eight["MatMul"] == layers


def test_eight_bits_are_a_step_of_each_block() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    weights[1, :16] = 0
    steps, scales = eight_bits(weights)
    assert (steps.dtype, steps.shape, scales.shape) == (np.uint8, (3, 2, 16), (3, 2))
    back = ((steps.astype(np.float32) - 128) * scales[..., None]).reshape(weights.shape)
    assert np.abs(back - weights).max() <= 0.5001 * scales.max()
    assert not back[1, :16].any()


def test_a_model_with_eight_bits_answers_as_with_all_of_its_weights(embedded: Path, onnx_model: Path) -> None:
    photos = [Image.open(FOLDER / name).convert("RGB") for name in SINGLE]
    policies = [OnnxPolicy(folder, "cpu") for folder in (embedded, onnx_model)]
    for task in (Task.SOD, Task.SIS):
        found, wanted = (each.respond([[photo] for photo in photos], task) for each in policies)
        for one, other in zip(found, wanted, strict=True):
            answers = [parse_lenient(each.text, task).expressions for each in (one, other)]
            assert answers[0] == answers[1]
            assert one.confidence == pytest.approx(other.confidence, abs=EIGHT_BITS_CONFIDENCE)


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
