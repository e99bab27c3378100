"""Exports: what is written loads again and answers the same; cards; pushing without a network."""

from __future__ import annotations

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

import tiny_policies
from saliency_r1 import SaliencyPipeline, nano
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.prompts import is_fine_tuned
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.segmenters.nano import EMBEDDED
from saliency_r1.sharing.export import PROCESSOR_FILES, Export, export
from saliency_r1.sharing.hub import check_push, push
from saliency_r1.tasks import Task

BASE = "Qwen/Qwen2.5-VL-3B-Instruct"
SUMMARY: dict[str, Any] = {
    "task": "sod",
    "data": {"name": "DUTS validation", "path": "/data/DUTS", "split": "validation"},
    "method": {"name": "ours"},
    "metrics": {"mae": 0.0409640490, "iou": 0.87, "ap": None, "mean_e": float("nan")},
    "notes": ["3 of 500 predictions were missing"],
    "command": "saliency-r1 evaluate --data /data/DUTS --policy runs/sft/policy",
}


def photo() -> Image.Image:
    ramp = np.add.outer(np.arange(84), 2 * np.arange(112)).astype(np.uint8)
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], -1))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL in the folder of a run, as training leaves it, with what must not travel."""
    run = tmp_path_factory.mktemp("runs") / "cgpo"
    first = run.with_name("sft")
    first.mkdir()
    (first / "recipe.json").write_text(json.dumps({"train": "sft-data/train.jsonl", "policy": BASE}))
    folder = tiny_policies.qwen2_5_vl(run / "policy")
    recipe = {"train": "data/train.jsonl", "learning_rate": 1e-6, "start": str(first / "policy")}
    (run / "recipe.json").write_text(json.dumps(recipe))
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    (folder / "modeling_extra.py").write_text("raise SystemExit")
    return folder


@pytest.fixture(scope="module")
def exported(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That, exported with numbers, in several weights files."""
    work = tmp_path_factory.mktemp("exported")
    (work / "summary.json").write_text(json.dumps(SUMMARY))
    return export(
        Export(
            str(qwen),
            work / "shared-model",
            metrics=(work,),
            licence="apache-2.0",
            datasets=("me/duts-rationales",),
            shard_size="150KB",
        )
    )


def answer(folder: Path | None, **options: Any) -> str:
    policy = TransformersPolicy.from_pretrained(folder, device="cpu", prompting="plain", **options)
    [output] = policy.respond([[photo()]], Task.SOD, max_new_tokens=12)
    return output.text


def test_a_large_model_comes_back_and_answers_the_same(qwen: Path, exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert "model.safetensors.index.json" in names
    shards = {name for name in names if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    assert len(shards) > 1
    known = {"config.json", "generation_config.json", "model.safetensors.index.json", "README.md"}
    assert names - shards - known <= set(PROCESSOR_FILES)
    assert answer(exported) == answer(qwen)
    # The Auto classes alone, without this package.
    model, ours = (
        AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (exported, qwen)
    )
    assert model.keys() == ours.keys()
    assert all(torch.equal(model[name], ours[name]) for name in model)


def test_a_policy_of_a_run_is_marked_and_then_asked_plainly(qwen: Path, exported: Path) -> None:
    assert TransformersPolicy.from_pretrained(qwen, device="cpu").zero_shot
    policy = TransformersPolicy.from_pretrained(exported, device="cpu")
    assert is_fine_tuned(policy.model.config)
    assert not policy.zero_shot


def test_the_card_says_what_the_hub_reads(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    data = card.data
    assert (data.license, data.base_model) == ("apache-2.0", BASE)  # as the first recipe says
    assert (data.datasets, data.library_name) == (["me/duts-rationales"], "transformers")
    assert data.pipeline_tag == "image-text-to-text"
    results = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert results == {("DUTS validation", "mae"): 0.040964, ("DUTS validation", "iou"): 0.87}
    text = card.text
    assert "| MAE | IoU |" in text
    assert "| .041 | .870 |" in text
    assert "3 of 500 predictions were missing." in text
    assert SUMMARY["command"] in text
    first, second = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert float(yaml.safe_load(first)["learning_rate"]) == 1e-6
    assert yaml.safe_load(second)["train"] == "sft-data/train.jsonl"


def test_the_nano_policy_travels_with_a_segmenter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    assert main(["export", "nano", "--out", str(out), "--segmenter", "nano"]) == 0
    assert f"read {out / 'README.md'} before you share it" in capfd.readouterr().out
    for folder, ours in ((out, nano.POLICY_FOLDER), (out / "segmenter", EMBEDDED)):
        before, after = (load_file(where / "model.safetensors") for where in (ours, folder))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert answer(out) == answer(None)
    first, second = (
        SaliencyPipeline.from_pretrained(where, device="cpu", runtime="torch") for where in (None, out)
    )
    assert second.segmenter.model.config == first.segmenter.model.config  # type: ignore[attr-defined]
    one, other = first(photo()), second(photo())
    assert (other.reasoning, other.expressions) == (one.reasoning, one.expressions)
    assert np.array_equal(other.mask, one.mask)
    # It is the folder's own segmenter that runs, not the embedded one.
    (out / "segmenter" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(SaliencyError, match="does not fit"):
        SaliencyPipeline.from_pretrained(out, device="cpu")
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "saliency-r1")
    assert "DUTS-TR" in card.text


def test_an_adapter_is_merged_or_shared_as_it_is(qwen: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tmp_path / "base"
    shutil.copytree(qwen, base)
    model = AutoModelForImageTextToText.from_pretrained(base)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapter = tmp_path / "adapter"
    wrapped.save_pretrained(adapter)
    with pytest.raises(SaliencyError, match="merge it first"):
        TransformersPolicy.from_pretrained(adapter, device="cpu")

    merged = export(Export(str(adapter), tmp_path / "merged", merge=True))
    assert not (merged / "adapter_config.json").exists()
    assert answer(merged) != answer(base)
    policy = TransformersPolicy.from_pretrained(base, device="cpu", prompting="plain")
    policy.model = peft.PeftModel.from_pretrained(policy.model, adapter).eval()
    [output] = policy.respond([[photo()]], Task.SOD, max_new_tokens=12)
    assert answer(merged) == output.text
    assert not TransformersPolicy.from_pretrained(merged, device="cpu").zero_shot

    shared = export(Export(str(adapter), tmp_path / "shared", base_model="Qwen/Qwen2.5-VL-3B-Instruct"))
    assert (shared / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert not (shared / "config.json").exists()
    data = ModelCard.load(shared / "README.md").data
    assert (data.base_model, data.library_name) == ("Qwen/Qwen2.5-VL-3B-Instruct", "peft")
    loaded = peft.PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), shared)
    assert loaded.peft_config["default"].r == 2

    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(SaliencyError, match=r"pickled one \(\.bin\) is not read"):
        export(Export(str(adapter), tmp_path / "other", merge=True))


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(qwen: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "summary.json").write_text('{"task": "sod"}')
    with pytest.raises(SaliencyError, match=r"is no summary.json of saliency-r1 evaluate"):
        export(Export("nano", out, metrics=(tmp_path / "summary.json",)))
    with pytest.raises(SaliencyError, match="nothing to merge"):
        export(Export(str(qwen), out, merge=True))
    with pytest.raises(SaliencyError, match="holds no nano segmenter"):
        export(Export("nano", out, segmenter=str(qwen)))
    pickled = tmp_path / "pickled"
    shutil.copytree(qwen, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(SaliencyError, match="its weights are pickled"):
        export(Export(str(pickled), out))
    assert {path.name for path in tmp_path.iterdir()} == {"pickled", "summary.json"}
    with pytest.raises(SaliencyError, match="holds files already"):
        export(Export("nano", pickled))


def test_a_push_is_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert main(["export", "nano", "--out", str(tmp_path / "out"), "--push", "me/model"]) == 2
    assert "pushing needs a token in the environment variable HF_TOKEN" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(SaliencyError, match="expected OWNER/NAME"):
        check_push("model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SaliencyError, match="HF_HUB_OFFLINE is set"):
        check_push("me/model")


def test_a_push_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, dict[str, Any]]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers["authorization"], body))
            self.send_response(403)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (tmp_path / "README.md").write_text("# A model")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        with pytest.raises(SaliencyError, match=r"the hub refused it \(HTTP 403") as refused:
            push(tmp_path, "me/model")
    finally:
        server.shutdown()
        server.server_close()
    [(path, token, body)] = asked
    assert (path, token) == ("/api/repos/create", "Bearer hf_secret")
    assert body["visibility"] == "private"
    with pytest.raises(SaliencyError, match=f"could not be pushed, {tmp_path} is complete") as offline:
        push(tmp_path, "me/model")  # nobody is there any more
    for error in (refused, offline):
        assert "hf_secret" not in str(error.value)
        assert "\n" not in str(error.value)
