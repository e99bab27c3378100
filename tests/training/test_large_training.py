"""Training of a vision-language policy: Qwen2.5-VL's real architecture with tiny random weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import is_flash_attn_2_available

import tiny_policies
from drawn_data import draw_groups, draw_pairs

pytest.importorskip("trl")

from repository import ROOT, module_at
from saliency_r1.cli import main
from saliency_r1.data.prompt_examples import read_prompts
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.prompts import is_fine_tuned
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import Response
from saliency_r1.tasks import Task
from saliency_r1.training.config import load_recipe
from saliency_r1.training.fine_tuning.large import LargeSFTRecipe, LargeSFTTrainer, example_dataset
from saliency_r1.training.fine_tuning.recipe import fine_tuning_settings
from saliency_r1.training.fine_tuning.task_batches import KindsApart
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.reinforcement.questions import Photos
from saliency_r1.training.reinforcement.rollouts import RolloutRecipe
from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe, rl_settings
from saliency_r1.writing.sft_set import SFTExample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a policy, questions of SOD and CoSOD with masks, and the same with responses."""
    folder = tmp_path_factory.mktemp("large")
    tiny_policies.qwen2_5_vl(folder / "policy")
    draw_pairs(folder / "sod", 4)
    draw_groups(folder / "cosod" / "images", folder / "cosod" / "masks", {"disc": 2})
    prompts = folder / "prompts.jsonl"
    options = ["--sod", str(folder / "sod"), "--cosod", str(folder / "cosod"), "--group", "2"]
    assert main(["data", "prompts", str(prompts), *options]) == 0
    lines = []
    for asked in read_prompts(prompts):
        answer = Response("It is large.", ("the disc",), asked.task.spec.tag).text
        prompt = asked.task.spec.prompt()
        example = SFTExample(asked.name, tuple(asked.images), False, asked.task, prompt, answer)
        lines.append(example.to_json() + "\n")
    assert {json.loads(line)["task"] for line in lines} == {"sod", "cosod"}
    (folder / "sft.jsonl").write_text("".join(lines))
    return folder


def recipe(data: Path, output: Path, **changes: Any) -> Path:
    """A recipe's file; YAML reads JSON."""
    values = {
        "image_root": str(data),
        "output": str(output),
        "max_pixels": 20_000,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "log_every": 1,
        "save_every": 2,
    }
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(values | changes))
    return path


def fine_tuning(data: Path, output: Path, **changes: Any) -> Path:
    own = {
        "policy": str(data / "policy"),
        "train": str(data / "sft.jsonl"),
        "accumulation": 1,
        "workers": 0,
        "learning_rate": 5e-3,
    }
    return recipe(data, output, **(own | changes))


def rewarded(data: Path, output: Path, **changes: Any) -> Path:
    own = {"start": str(data / "policy"), "train": str(data / "prompts.jsonl"), "max_tokens": 12}
    return recipe(data, output, **(own | changes))


@pytest.mark.parametrize(("rank", "precision"), [(0, "float32"), (8, "float32"), (0, "bfloat16")])
def test_a_fine_tuned_policy_learns_and_is_asked_plainly(
    data: Path, tmp_path: Path, rank: int, precision: str
) -> None:
    more = {"lora_rank": rank, "precision": precision, "validation": str(data / "sft.jsonl")}
    path = fine_tuning(data, tmp_path / "out", max_steps=8, **more)
    assert main(["train", "sft", "--config", str(path)]) == 0
    losses = [value for _, name, value in read_metrics(tmp_path / "out" / "metrics.csv") if name == "loss"]
    assert losses[-1] < losses[0] - 0.2
    folder = tmp_path / "out" / "policy"
    policy = TransformersPolicy.from_pretrained(folder, device="cpu", dtype="auto")
    assert policy.model.dtype == getattr(torch, precision)
    assert is_fine_tuned(policy.model.config)
    assert not policy.zero_shot
    start, end = (load_file(each / "model.safetensors") for each in (data / "policy", folder))
    assert start.keys() == end.keys()
    moved = {name for name in start if not torch.equal(start[name].to(end[name].dtype), end[name])}
    assert any("q_proj" in name and "visual" not in name for name in moved)
    assert any("visual" in name for name in moved) == (rank == 0)


def test_fine_tuning_goes_on_from_its_checkpoint_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    path = fine_tuning(data, tmp_path / "out", max_steps=4)
    assert main(["train", "sft", "--config", str(path)]) == 0
    whole = load_file(tmp_path / "out" / "policy" / "model.safetensors")
    for name in ("checkpoint-4", "policy"):
        shutil.rmtree(tmp_path / "out" / name)
    assert main(["train", "sft", "--config", str(path), "--resume"]) == 0
    again = load_file(tmp_path / "out" / "policy" / "model.safetensors")
    for name in whole:
        torch.testing.assert_close(whole[name], again[name], rtol=0, atol=1e-6)


def on_two_processes(path: Path, *more: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "saliency_r1", "train", "cgpo", "--config", str(path), *more]
    # Two processes of many threads each would wait for one another.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_cgpo_with_adapters_on_two_processes_goes_on_is_merged_and_predicts(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    path = rewarded(
        data, out, max_steps=3, lora_rank=4, gradient_checkpointing=True, save_every=1, learning_rate=0.01
    )
    on_two_processes(path)
    rows = [(name, value) for _, name, value in read_metrics(out / "metrics.csv")]
    assert [value for name, value in rows if name == "prompts"] == [4] * 3
    assert all(0 <= value <= 1 for name, value in rows if name == "confidence/mean")
    whole = load_file(out / "policy" / "model.safetensors")
    assert (out / "checkpoint-2" / "adapter_model.safetensors").is_file()

    # As after a kill in the third step.
    for name in ("checkpoint-3", "policy"):
        shutil.rmtree(out / name)
    on_two_processes(path, "--resume")
    again = load_file(out / "policy" / "model.safetensors")
    assert whole.keys() == again.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], again[name], rtol=0, atol=1e-6)

    # Merged: the start's tensors and no others, the language model's moved.
    start = load_file(data / "policy" / "model.safetensors")
    assert start.keys() == again.keys()
    moved = {name for name in start if not torch.equal(start[name], again[name])}
    assert any("q_proj" in name for name in moved)
    assert not any("visual" in name for name in moved)

    photo = next((data / "sod").rglob("*.jpg"))
    command = ["predict", str(photo), "--policy", str(out / "policy"), "--device", "cpu", "--json", "--fast"]
    assert main([*command, "--max-pixels", "20000"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["model"].startswith("policy + ")
    assert said["retries"] == 0  # asked plainly, and once
    assert 0 <= said["policy_confidence"] <= 1


@pytest.mark.slow
def test_cgpo_of_all_weights_on_two_processes(data: Path, tmp_path: Path) -> None:
    path = rewarded(data, tmp_path / "out", max_steps=1)
    on_two_processes(path)
    policy = TransformersPolicy.from_pretrained(tmp_path / "out" / "policy", device="cpu")
    assert is_fine_tuned(policy.model.config)


@pytest.mark.slow
def test_grpo_of_a_large_policy(data: Path, tmp_path: Path) -> None:
    path = rewarded(data, tmp_path / "out", max_steps=1, group=2)
    assert main(["train", "grpo", "--config", str(path)]) == 0
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_recipes_are_whole(size: str) -> None:
    folder = ROOT / "recipes" / f"qwen2.5-vl-{size}"
    assert load_recipe(folder / "sft.yaml", LargeSFTRecipe).policy == f"Qwen/Qwen2.5-VL-{size[0]}B-Instruct"
    start = load_recipe(folder / "sft.yaml", LargeSFTRecipe).output / "policy"
    for name, kind in (("cgpo", CGPORecipe), ("grpo", GRPORecipe)):
        assert Path(str(load_recipe(folder / f"{name}.yaml", kind).start)) == start


@pytest.mark.parametrize(
    ("name", "sharding", "machines", "processes"),
    [
        ("one-gpu", None, 1, 1),
        ("fsdp", "fsdp", 1, 8),
        ("deepspeed-zero3", "deepspeed", 1, 8),
        ("two-nodes", "fsdp", 2, 16),
    ],
)
def test_accelerate_s_launcher_reads_its_configurations(
    name: str, sharding: str | None, machines: int, processes: int
) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = str(ROOT / "recipes" / "accelerate" / f"{name}.yaml")
    given = launch_command_parser().parse_args(["--config_file", file, "-m", "saliency_r1", "train", "cgpo"])
    given, *_ = _validate_launch_command(given)
    assert (given.num_machines, given.num_processes, given.mixed_precision) == (machines, processes, "bf16")
    assert {kind for kind in ("fsdp", "deepspeed") if getattr(given, f"use_{kind}")} == {sharding} - {None}
    if sharding == "fsdp":
        told = prepare_multi_gpu_env(given)
        assert told["ACCELERATE_USE_FSDP"] == "true"
        assert told["FSDP_VERSION"] == "2"
        assert told["FSDP_RESHARD_AFTER_FORWARD"] == "true"
        assert told["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
        assert told["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    if sharding == "deepspeed":
        assert given.zero_stage == 3
        assert given.zero3_save_16bit_model is True


def test_a_recipe_with_settings_of_the_nano_policy_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fine_tuning(data, tmp_path / "out", instances=True)
    assert main(["train", "sft", "--config", str(path)]) == 2
    assert "unknown key 'instances'" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_what_sharded_weights_cannot_do_is_refused_before_anything_is_loaded(
    data: Path, tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(flag, "true")
    no_policy = {"policy": str(tmp_path / "none")}
    path = fine_tuning(data, tmp_path / "sft", lora_rank=8, **no_policy)
    assert main(["train", "sft", "--config", str(path)]) == 2
    assert "adapters cannot be merged; train all weights" in capsys.readouterr().err
    path = rewarded(data, tmp_path / "cgpo", lora_rank=8)
    assert main(["train", "cgpo", "--config", str(path)]) == 2
    assert "adapters cannot be merged; train all weights" in capsys.readouterr().err


def test_vllm_without_the_package_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("saliency_r1.training.reinforcement.rollouts.is_vllm_available", lambda: False)
    path = rewarded(data, tmp_path / "out", vllm="colocate")
    assert main(["train", "cgpo", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "vllm is 'colocate', and the package is not installed: pip install 'trl[vllm]'" in error


# vLLM: what can be told without it.


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that has the package: what is refused is refused before it is imported."""
    monkeypatch.setattr("saliency_r1.training.reinforcement.rollouts.is_vllm_available", lambda: True)


def test_a_start_that_vllm_would_show_other_photos_is_refused(
    data: Path, tmp_path: Path, with_vllm: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewarded(data, tmp_path / "out", vllm="colocate")
    assert main(["train", "cgpo", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "max_pixels is 20000, so photos are sized by" in error
    assert "12845056" in error  # what the folder's processor allows


def test_a_length_that_is_too_short_for_the_questions_is_refused(
    data: Path, tmp_path: Path, with_vllm: None, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(data / "policy", saved)
    TransformersPolicy.from_pretrained(saved, device="cpu", max_pixels=20_000).processor.save_pretrained(
        saved
    )
    path = rewarded(data, tmp_path / "out", vllm="colocate", start=str(saved), vllm_length=40)
    assert main(["train", "cgpo", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    [longest] = [int(found) for found in re.findall(r"the longest question has (\d+) tokens", error)]
    assert f"vllm_length is 40, and the longest question has {longest} tokens, its answer 12" in error
    assert f"set vllm_length to {longest + 12} or more" in error


def test_what_a_recipe_says_of_vllm_reaches_trl(data: Path, tmp_path: Path) -> None:
    path = rewarded(
        data, tmp_path / "out", vllm="colocate", vllm_memory=0.5, vllm_length=2000, vllm_parallel=2
    )
    told = rl_settings(load_recipe(path, CGPORecipe))
    assert (told.use_vllm, told.vllm_mode, told.vllm_enable_sleep_mode) == (True, "colocate", True)
    assert (told.vllm_gpu_memory_utilization, told.vllm_max_model_length) == (0.5, 2000)
    assert told.vllm_tensor_parallel_size == 2
    path = rewarded(data, tmp_path / "out", vllm="server", vllm_server="http://10.0.0.1:9000", group=2)
    told = rl_settings(load_recipe(path, GRPORecipe))
    assert (told.vllm_mode, told.vllm_server_base_url) == ("server", "http://10.0.0.1:9000")
    for wrong in ({"vllm_memory": 1.5}, {"vllm_length": 0}, {"vllm_server": "10.0.0.1"}):
        path = rewarded(data, tmp_path / "out", **wrong)
        with pytest.raises(SaliencyError, match=next(iter(wrong))):
            load_recipe(path, CGPORecipe)


def test_the_defaults_of_vllm_fit_7b_on_80_gb_by_the_plan() -> None:
    large_plan = module_at("benchmarks/large_plan.py")
    large = large_plan.MODELS[1]
    keys = RolloutRecipe  # its defaults
    assert (keys.vllm_memory, keys.vllm_length) == (large_plan.UTILISATION, large_plan.VLLM_LENGTH)
    share = keys.vllm_memory * large_plan.CARD
    assert sum(large_plan.vllm(large).values()) < share
    # vLLM is set up while each process still holds the whole policy in float32.
    assert 4 * large.weights + share < large_plan.CARD
    # In a rollout, weights, optimiser and segmenter stay where they are; in the update vLLM sleeps.
    for gpus in large_plan.SETS:
        held = large_plan.weights(large, gpus) + large_plan.SEGMENTER
        assert large_plan.SPARE * held + share < large_plan.CARD
        assert large_plan.peak(large, gpus, "cgpo") < large_plan.CARD
    longest = large_plan.tokens_of(5) - large_plan.RESPONSE_TOKENS + large_plan.LONGEST_RESPONSE
    assert longest <= keys.vllm_length


# Keys of the recipes.


def test_a_frozen_vision_encoder_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    path = fine_tuning(data, tmp_path / "out", max_steps=2, freeze_vision=True, attn_implementation="eager")
    assert main(["train", "sft", "--config", str(path)]) == 0
    start, end = (
        load_file(each / "model.safetensors") for each in (data / "policy", tmp_path / "out" / "policy")
    )
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert moved
    assert not any("visual" in name for name in moved)
    assert any("visual" in name for name in start)


def test_attention_is_chosen_and_what_is_not_installed_is_said(data: Path) -> None:
    policy = TransformersPolicy.from_pretrained(data / "policy", device="cpu", attn_implementation="eager")
    assert policy.model.config._attn_implementation == "eager"
    assert (
        TransformersPolicy.from_pretrained(data / "policy", device="cpu").model.config._attn_implementation
        == "sdpa"
    )
    if not is_flash_attn_2_available():
        with pytest.raises(SaliencyError, match=r"(?i)flash.?att.*") as error:
            TransformersPolicy.from_pretrained(
                data / "policy", device="cpu", attn_implementation="flash_attention_2"
            )
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_workers_that_read_ahead_change_nothing(data: Path, tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        path = rewarded(data, tmp_path / str(workers), max_steps=2, workers=workers)
        assert main(["train", "cgpo", "--config", str(path)]) == 0
        weights.append(load_file(tmp_path / str(workers) / "policy" / "model.safetensors"))
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])


def test_tasks_kept_apart_halve_the_padding(data: Path, tmp_path: Path) -> None:
    """An epoch of single photos and groups of five, by the batches that the model would see."""
    draw_pairs(tmp_path / "sod", 16)
    single = sorted((tmp_path / "sod").rglob("*.jpg"))
    answer = Response("It is large.", ("the disc",), "rg").text
    examples = [
        SFTExample(f"one {number}", (str(photo),), False, Task.SOD, Task.SOD.spec.prompt(), answer)
        for number, photo in enumerate(single)
    ]
    examples += [
        SFTExample(
            f"five {number}",
            tuple(map(str, single[number : number + 5])),
            False,
            Task.COSOD,
            Task.COSOD.spec.prompt(),
            answer,
        )
        for number in range(8)
    ]
    policy = TransformersPolicy.from_pretrained(data / "policy", device="cpu", max_pixels=20_000)
    padded = {}
    for apart in (False, True):
        path = fine_tuning(data, tmp_path / "out", batch_size=4)
        kinds = [(one.task, len(one.images)) for one in examples] if apart else None
        trainer = LargeSFTTrainer(
            model=policy.model,
            args=fine_tuning_settings(load_recipe(path, LargeSFTRecipe), gradient_checkpointing=False),
            processing_class=policy.processor,
            train_dataset=example_dataset(examples, Photos(tmp_path, policy.seen)),
            kinds=kinds,
        )
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        assert sum(len(mask) for mask in masks) == len(examples)
        padded[apart] = sum(int((mask == 0).sum()) for mask in masks)
    assert padded[True] <= 0.5 * padded[False]


def test_kinds_are_kept_apart_in_another_order_each_epoch() -> None:
    kinds = ["one", "five", "one"] * 10
    sampler = KindsApart(kinds, 4, seed=3)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(epochs[-1]) == list(range(30))
        batches = [epochs[-1][start : start + 4] for start in range(0, 28, 4)]
        assert all(len({kinds[number] for number in batch}) == 1 for batch in batches)
    assert epochs[0] != epochs[1] != epochs[2]
    again = KindsApart(kinds, 4, seed=3)
    again.set_epoch(2)
    assert list(again) == epochs[2]
