"""Training of sharded weights: FSDP 2 on two processes of the CPU, set up as by `accelerate launch`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_policies
from drawn_data import draw_groups, draw_pairs

pytest.importorskip("trl")

from repository import ROOT
from saliency_r1.cli import main
from saliency_r1.data.prompt_examples import read_prompts
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import Response
from saliency_r1.training.logs import read_metrics
from saliency_r1.writing.sft_set import SFTExample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, questions of SOD and of groups of five, and the same with responses."""
    folder = tmp_path_factory.mktemp("sharded")
    tiny_policies.qwen2_5_vl(folder / "policy")
    draw_pairs(folder / "sod", 4)
    draw_groups(folder / "cosod" / "images", folder / "cosod" / "masks", {"disc": 5})
    prompts = folder / "prompts.jsonl"
    options = ["--sod", str(folder / "sod"), "--cosod", str(folder / "cosod"), "--group", "5"]
    assert main(["data", "prompts", str(prompts), *options]) == 0
    lines = []
    for asked in read_prompts(prompts):
        answer = Response("It is large.", ("the disc",), asked.task.spec.tag).text
        prompt = asked.task.spec.prompt()
        example = SFTExample(asked.name, tuple(asked.images), False, asked.task, prompt, answer)
        lines.append(example.to_json() + "\n")
    assert max(len(asked.images) for asked in read_prompts(prompts)) == 5
    (folder / "sft.jsonl").write_text("".join(lines))
    return folder


def fsdp_environment() -> dict[str, str]:
    """What `accelerate launch --config_file recipes/accelerate/fsdp.yaml` tells its processes, on the CPU."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = str(ROOT / "recipes" / "accelerate" / "fsdp.yaml")
    given = launch_command_parser().parse_args(["--config_file", file, "-m", "saliency_r1", "train", "sft"])
    given, *_ = _validate_launch_command(given)
    told = {
        name: value
        for name, value in prepare_multi_gpu_env(given).items()
        if name.startswith(("ACC", "FSDP"))
    }
    assert told["ACCELERATE_USE_FSDP"] == "true"
    # Two processes of many threads each would wait for one another.
    return {**os.environ, **told, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def sharded(method: str, data: Path, output: Path, *more: str, **changes: Any) -> dict[str, list[float]]:
    """Train on two processes; the logged values by name."""
    own = (
        {"policy": str(data / "policy"), "train": str(data / "sft.jsonl"), "workers": 0}
        if method == "sft"
        else {"start": str(data / "policy"), "train": str(data / "prompts.jsonl"), "max_tokens": 8}
    )
    values = {
        "image_root": str(data),
        "output": str(output),
        "max_pixels": 20_000,
        "batch_size": 2,
        "accumulation": 1,
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "learning_rate": 5e-3,
        "device": "cpu",
        "log_every": 1,
        "save_every": 1,
        **own,
        **changes,
    }
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(values))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "saliency_r1", "train", method, "--config", str(path), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=fsdp_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    logged: dict[str, list[float]] = {}
    for _, name, value in read_metrics(output / "metrics.csv"):
        logged.setdefault(name, []).append(value)
    return logged


def test_fine_tuning_with_validation_learns_and_its_policy_answers(data: Path, tmp_path: Path) -> None:
    logged = sharded(
        "sft", data, tmp_path / "out", max_steps=4, validation=str(data / "sft.jsonl"), validate_every=2
    )
    assert logged["eval_loss"][-1] < logged["eval_loss"][0]
    start, end = (
        load_file(each / "model.safetensors") for each in (data / "policy", tmp_path / "out" / "policy")
    )
    assert {name: tensor.shape for name, tensor in start.items()} == {
        n: tensor.shape for n, tensor in end.items()
    }
    assert {tensor.dtype for tensor in end.values()} == {torch.bfloat16}
    policy = TransformersPolicy.from_pretrained(tmp_path / "out" / "policy", device="cpu")
    assert not policy.zero_shot


def test_cgpo_with_groups_of_five_is_resumed_to_the_last_bit(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = {"validation": str(data / "prompts.jsonl"), "validate_every": 2}
    logged = sharded("cgpo", data, out, max_steps=3, **asked)
    assert len(logged["validation/reward"]) == 3  # of the start, and after the second and the last step
    assert logged["prompts"] == [4] * 3
    assert all(0 <= value <= 1 for value in logged["confidence/mean"])
    whole = load_file(out / "policy" / "model.safetensors")
    # As after a kill in the third step.
    for name in ("checkpoint-3", "policy"):
        shutil.rmtree(out / name)
    sharded("cgpo", data, out, "--resume", max_steps=3, **asked)
    again = load_file(out / "policy" / "model.safetensors")
    start = load_file(data / "policy" / "model.safetensors")
    assert whole.keys() == again.keys() == start.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert any(not torch.equal(start[name].bfloat16(), again[name]) for name in start)


def test_grpo_with_a_reference_model(data: Path, tmp_path: Path) -> None:
    logged = sharded("grpo", data, tmp_path / "out", max_steps=2, group=2, kl=0.1)
    assert len(logged["kl"]) == 2
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()
