"""Runs of reinforcement learning from recipes, on drawn pictures and a tiny nano policy."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from drawn_data import draw_groups, draw_pairs, scene

pytest.importorskip("trl")

from repository import ROOT
from saliency_r1.cli import main
from saliency_r1.data.prompt_examples import PromptExample, read_prompts, write_prompts
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.processing import NanoImageProcessor, NanoProcessor
from saliency_r1.nano.tokenizer import train_tokenizer
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import Response
from saliency_r1.rewards.own import load_reward
from saliency_r1.scenes.instance_photos import is_held_out
from saliency_r1.tasks import Task
from saliency_r1.training.checkpoints import COMPLETE
from saliency_r1.training.config import load_recipe
from saliency_r1.training.features import FeatureMemory
from saliency_r1.training.fine_tuning.examples import prompt_text
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.reinforcement.questions import Photos, prompt_dataset
from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe, train_rl
from saliency_r1.writing.rl_prompts import spread_groups


def tiny_policy(folder: Path) -> Path:
    """A nano policy that mostly writes one of two answers, well-formed ones for SOD and CoSOD."""
    answers = [Response("Large.", (word,), "rg").text for word in ("the disc", "the ball")]
    words = train_tokenizer([task.spec.prompt() for task in Task] * 3 + answers * 3, 400)
    torch.manual_seed(0)
    config = NanoConfig(
        text_config={
            "vocab_size": -(-len(words) // 8) * 8,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": words.pad_token_id,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
        },
        adapter_layers=0,
        adapter_dropout=0.0,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    model = NanoForImageTextToText(config)
    processor = NanoProcessor(NanoImageProcessor(), words)
    learn(model, processor, answers)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def learn(model: Any, processor: Any, answers: list[str]) -> None:
    """A few steps on the answers, to every task."""
    tokenizer = processor.tokenizer
    rows = []
    for task in Task:
        asked = prompt_text(processor, task.spec.prompt(), 1 + task.spec.several_images)
        asked = asked.replace("<image>", processor.replace_image_token({}, 0))
        prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
        for text in answers:
            said = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            rows.append((prompt, said, 1 + task.spec.several_images))
    photos = [scene(seed)[0] for seed in range(3)]
    with torch.no_grad():
        pixels = processor.image_processor(photos, return_tensors="pt")["pixel_values"]
        seen = model.eval().model.encode_images(pixels)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        for prompt, said, images in rows:
            ids = torch.tensor([prompt + said])
            labels = torch.tensor([[-100] * len(prompt) + said])
            features = seen[torch.randint(0, 3, (images,))]
            model(input_ids=ids, labels=labels, image_features=features).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads sum in another order than one, which the last digit tells."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a policy, photos of three layouts and `train.jsonl` of all tasks."""
    folder = tmp_path_factory.mktemp("data")
    tiny_policy(folder / "policy")
    draw_pairs(folder / "sod", 4)
    draw_groups(folder / "cosod" / "images", folder / "cosod" / "masks", {"disc": 4})
    photo, mask = scene(7)
    (folder / "sis" / "images").mkdir(parents=True)
    photo.save(folder / "sis" / "images" / "two.png")
    box = {"size": [72, 96], "counts": [0, 72 * 8, 72 * 88]}
    annotations = [
        {"id": number, "image_id": 1, "segmentation": one}
        for number, one in enumerate((encode(np.asarray(mask) > 127), box))
    ]
    annotations[0]["segmentation"]["counts"] = annotations[0]["segmentation"]["counts"].decode()
    image = {"id": 1, "file_name": "two.png", "height": 72, "width": 96}
    coco = {"images": [image], "annotations": annotations, "categories": []}
    (folder / "sis" / "instances.json").write_text(json.dumps(coco))
    rows = read_cli(folder, "--sod", "sod", "--cosod", "cosod", "--sis", "sis", "--group", "2")
    write_prompts(folder / "train.jsonl", [*rows, rows[0]])
    return folder


def read_cli(folder: Path, *options: str) -> list[PromptExample]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["data", "prompts", "made.jsonl", *options]) == 0
        return read_prompts("made.jsonl")


def values(data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "train": data / "train.jsonl",
        "output": output,
        "image_root": data,
        "start": str(data / "policy"),
        "max_steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "schedule": "constant",
        "warmup": 0.0,
        "max_tokens": 16,
        "temperature": 0.6,
        "device": "cpu",
        "log_every": 1,
        "save_every": 2,
        "validate_every": 4,
        **changes,
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# Questions.


def test_questions_come_from_folders_with_their_masks(data: Path) -> None:
    rows = read_prompts(data / "train.jsonl")[:-1]
    assert sorted(str(row.task) for row in rows) == ["cosod"] * 2 + ["sis"] + ["sod"] * 4
    for row in rows:
        assert row.prompt == row.task.spec.prompt()
        if row.task is Task.SIS:
            assert [int(mask.sum()) for mask in row.truths(0)][1] == 72 * 8
            continue
        for number, path in enumerate(row.images):
            folder, _, stem = path.partition("/images/")
            true = np.asarray(Image.open(data / folder / "masks" / Path(stem).with_suffix(".png"))) > 127
            [mask] = row.truths(number)
            assert np.array_equal(mask, true)
    grouped = [path for row in rows if row.task is Task.COSOD for path in row.images]
    assert len(grouped) == len(set(grouped)) == 4
    mirrored = dataclasses.replace(rows[0], mirrored=True)
    assert np.array_equal(mirrored.truths(0)[0], rows[0].truths(0)[0][:, ::-1])


def test_a_share_of_the_questions_asks_for_the_answer_alone(data: Path) -> None:
    folders = ("--sod", "sod", "--sis", "sis", "--cosod", "cosod", "--group", "2")
    assert not any(row.reasoning for row in read_cli(data, *folders, "--fast", "1"))
    mixed = {row.reasoning for row in read_cli(data, *folders, "--fast", "0.5")}
    assert mixed == {True, False}


def test_photos_keep_to_their_split(data: Path) -> None:
    own, other = ("validation", "train") if is_held_out("two.png") else ("train", "validation")
    [row] = read_cli(data, "--photos", "sis", "--split", own)
    assert (row.task, row.name) == (Task.SIS, "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(data)
        assert main(["data", "prompts", "none.jsonl", "--photos", "sis", "--split", other]) != 0
    assert not (data / "none.jsonl").exists()


def test_some_questions_are_spread_over_all_groups() -> None:
    groups: dict[str, Any] = {"a": list("123456"), "b": list("1234"), "c": list("1")}
    assert spread_groups(groups, 2, None) == {"a": list("123456"), "b": list("1234")}
    assert spread_groups(groups, 2, 3) == {"a": ["1", "2", "4", "5"], "b": ["1", "3"]}


def test_damaged_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    for text in ("{}", "no json", '{"name": "a", "task": "sod", "prompt": "?", "images": [], "masks": []}'):
        path.write_text(text + "\n")
        with pytest.raises(SaliencyError, match=r"bad.jsonl:1: .*saliency-r1 data prompts") as error:
            read_prompts(path)
        assert "\n" not in str(error.value)


def test_rows_hold_what_the_trainer_and_the_reward_need(data: Path) -> None:
    examples = read_prompts(data / "train.jsonl")
    rows = prompt_dataset(examples, Photos(data, lambda image: image.resize((30, 20))))
    for row, example in zip(rows, examples, strict=True):
        assert [image.size for image in row["images"]] == [(30, 20)] * len(example.images)
        sizes = [tuple(masks[0]["size"]) for masks in example.masks]
        assert [(photo.height, photo.width) for photo in row["photos"]] == sizes
        assert row["prompt"] == [{"role": "user", "content": example.prompt}]
        assert len(row["images"]) == len(example.images)
        assert row["example"] == example


# Features.


def test_remembered_features_equal_the_towers_and_are_computed_once(data: Path) -> None:
    policy = TransformersPolicy.from_pretrained(data / "policy", device="cpu")
    photos = [scene(seed)[0] for seed in (1, 2)]
    pixels = policy.processor.image_processor([photos[0], photos[1], photos[0]], return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        expected = policy.model.model.encode_images(pixels)
    memory = FeatureMemory(policy.model, 2**22)
    with torch.inference_mode():
        found = policy.model.model.encode_images(pixels)
    assert torch.allclose(found, expected, atol=1e-4)
    assert memory.computed == 2
    again = policy.model.model.encode_images(pixels)
    assert memory.computed == 2
    (again.requires_grad_(False) * torch.ones(1, requires_grad=True)).sum().backward()
    policy.model.config.freeze_vision = False
    with pytest.raises(ValueError, match="cannot be kept"):
        FeatureMemory(policy.model, 1)


# Runs.


def broken_off(data: Path, output: Path) -> dict[str, Any]:
    """A recipe that needs all that a checkpoint holds: batches of half an epoch serve two passes each."""
    return values(
        data,
        output,
        validation=data / "train.jsonl",
        max_steps=8,
        learning_rate=1e-3,
        batch_size=2,
        accumulation=2,
        passes=2,
        kl=0.05,
        schedule="linear",
    )


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CGPO run that nothing broke."""
    output = tmp_path_factory.mktemp("run") / "out"
    train_rl(CGPORecipe(**broken_off(data, output)))
    return output


def test_a_run_learns_logs_and_leaves_a_policy(data: Path, finished: Path) -> None:
    rows = read_metrics(finished / "metrics.csv")
    names = {name for _, name, _ in rows}
    expected = {
        "reward",
        "parse_rate",
        "confidence/mean",
        "confidence/gap",
        "advantage/mean",
        "entropy",
        "kl",
    }
    expected |= {f"time/{part}" for part in ("data", "rollout", "reward", "segmenter", "update", "step")}
    expected |= {
        "clip_ratio/region_mean",
        "completions/mean_length",
        "tokens/rollout",
        "validation/reward/sis",
    }
    assert expected <= names
    assert [step for step, name, _ in rows if name == "validation/reward"] == [0, 4, 8]
    rewards = [value for _, name, value in rows if name == "reward"]
    assert all(0 < value < 1 for value in rewards)
    assert max(rewards) > 0.25
    generated = {step: value for step, name, value in rows if name == "prompts"}
    assert generated == {1: 4, 2: 0, 3: 4, 4: 0, 5: 4, 6: 0, 7: 4, 8: 0}
    start, end = weights(data / "policy"), weights(finished / "policy")
    changed = {name for name in start if not torch.equal(start[name].half(), end[name])}
    assert any("language_model" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    assert isinstance(TransformersPolicy.from_pretrained(finished / "policy").model, NanoForImageTextToText)


def test_every_metric_is_explained(finished: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    explained = set(re.findall(r"`([^`\s]+)`", page))
    for name in {name for _, name, _ in read_metrics(finished / "metrics.csv")}:
        general = re.sub(r"(?<=[/])(sod|sis|cosod)(?=/|$)", "<task>", name)
        general = re.sub(r"confidence_(all|answer)", "confidence_<kind>", general)
        assert {name, general} & explained, name


def test_the_parts_of_a_step_do_not_exceed_it(finished: Path) -> None:
    rows = read_metrics(finished / "metrics.csv")
    for step in range(1, 9):
        found = {
            name.removeprefix("time/"): value for at, name, value in rows if at == step and "time/" in name
        }
        parts = sum(found[part] for part in ("data", "rollout", "scoring", "reward", "update"))
        assert 0.5 * found["step"] < parts <= found["step"]
        assert found["segmenter"] <= found["reward"]


def test_grpo_and_adapters_run_from_the_same_recipe(data: Path, tmp_path: Path) -> None:
    recipe = GRPORecipe(**values(data, tmp_path / "grpo", group=2, max_steps=2, lora_rank=2))
    folder = train_rl(recipe)
    start, end = weights(data / "policy"), weights(folder)
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name].half(), end[name])}
    assert changed
    assert all("language_model.layers" in name and "_proj" in name for name in changed)
    rows = {name: value for _, name, value in read_metrics(tmp_path / "grpo" / "metrics.csv")}
    assert (rows["prompts"], rows["tokens/rollout"] > 4) == (2, True)


def test_own_rewards_reach_a_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(completions, **_):\n    return [1 / (1 + len(c)) for c in completions]\n"
    )
    changes = {"rewards": (f"{tmp_path}/mine.py:short",), "rewards_weights": (1.0,), "max_steps": 1}
    train_rl(CGPORecipe(**values(data, tmp_path / "out", confidence="none", **changes)))
    assert (tmp_path / "out" / "policy" / "config.json").is_file()


def test_the_best_step_is_kept_over_a_break(data: Path, tmp_path: Path) -> None:
    changes = {"validation": data / "train.jsonl", "validate_every": 1, "save_every": 1, "keep_best": True}
    output = tmp_path / "out"
    recipe = CGPORecipe(**values(data, output, **changes, max_steps=3, learning_rate=0.1))
    train_rl(recipe)
    folder = train_rl(dataclasses.replace(recipe, max_steps=6), resume=True)
    rewards = {
        step: value
        for step, name, value in read_metrics(output / "metrics.csv")
        if name == "validation/reward"
    }
    assert list(rewards) == list(range(7))
    best = max(range(1, 7), key=lambda step: rewards[step])
    assert best < 6  # the rate is far too high
    expected, found = weights(output / f"checkpoint-{best}"), weights(folder)
    assert all(torch.equal(expected[name].half(), found[name]) for name in found)
    assert not all(torch.equal(weights(output / "checkpoint-6")[name].half(), found[name]) for name in found)


def test_an_output_with_a_run_is_not_overwritten(data: Path, finished: Path) -> None:
    with pytest.raises(SaliencyError, match="--resume"):
        train_rl(CGPORecipe(**values(data, finished)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 1}, "keep is 1"),
        ({"keep_best": True}, "keep_best needs validation"),
        (
            {"keep_best": True, "validation": Path("v.jsonl")},
            "save_every is 2, which is no multiple of v.*, 4",
        ),
        ({"rewards": ("a.py:b",)}, r"rewards_weights are \[\] for 1 rewards"),
        ({"rewards": ("a.py:b", "c.py:b"), "rewards_weights": (1.0, 1.0)}, "two are called alike"),
        ({"batch_size": 0}, "batch_size is 0: choose 1 or more"),
        ({"iou_weight": 0.0, "s_measure_weight": 0.0}, "not both 0"),
    ],
)
def test_recipes_that_do_not_fit(data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CGPORecipe(**values(data, data / "none", **changes))


def test_settings_that_trl_refuses_are_one_line(data: Path, tmp_path: Path) -> None:
    for recipe, message in (
        (GRPORecipe(**values(data, tmp_path, group=3)), "must be divisible by num_generations"),
        (GRPORecipe(**values(data, tmp_path, group=2, passes=3)), "choose a multiple of 3"),
        (CGPORecipe(**values(data, tmp_path, temperature=0.0)), "temperature is 0.0"),
    ):
        with pytest.raises(SaliencyError, match=message) as error:
            train_rl(recipe)
        assert "\n" not in str(error.value)


def test_the_recipes_in_the_repository_are_read() -> None:
    folder = ROOT / "recipes" / "nano"
    ours, theirs = (
        load_recipe(folder / "cgpo.yaml", CGPORecipe),
        load_recipe(folder / "grpo.yaml", GRPORecipe),
    )
    shared = {field.name for field in dataclasses.fields(ours)} & {
        field.name for field in dataclasses.fields(theirs)
    }
    other = {name for name in shared if getattr(ours, name) != getattr(theirs, name)}
    assert other == {"output", "scale_rewards"}  # CGPO has no group to scale by
    words = load_recipe(folder / "cgpo-names.yaml", CGPORecipe)
    assert [load_reward(path).__name__ for path in words.rewards] == ["faithful", "named"]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    output, path = tmp_path / "killed", tmp_path / "r.yaml"
    recipe = broken_off(data, output)
    path.write_text(json.dumps(recipe, default=str))
    command = [sys.executable, "-m", "saliency_r1", "train", "cgpo", "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 600
    while not (output / "checkpoint-2" / COMPLETE).exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "policy").exists()
    train_rl(CGPORecipe(**recipe), resume=True)
    own = re.compile("time|_per_second|train_loss")  # what a process counts of itself
    logged = [
        [row for row in read_metrics(folder / "metrics.csv") if not own.search(row[1])]
        for folder in (finished, output)
    ]
    assert logged[0] == logged[1]
    expected, found = weights(finished / "policy"), weights(output / "policy")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_train_from_a_recipe(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    changes = {"max_steps": 1, "save_every": 4, "validation": data / "train.jsonl", "keep_best": True}
    path.write_text(json.dumps(values(data, tmp_path / "out", **changes), default=str))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "saliency_r1", "train", "cgpo", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = {name: value for _, name, value in read_metrics(tmp_path / "out" / "metrics.csv")}
    assert rows["prompts"] == 8
    assert (tmp_path / "out" / "policy" / "config.json").is_file()
