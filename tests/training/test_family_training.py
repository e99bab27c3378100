"""Every family through prediction, fine-tuning and CGPO: real architectures with tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny_policies
from drawn_data import draw_groups, draw_pairs

pytest.importorskip("trl")

from saliency_r1.cli import main
from saliency_r1.data.prompt_examples import read_prompts
from saliency_r1.response import Response
from saliency_r1.training.logs import read_metrics
from saliency_r1.writing.sft_set import SFTExample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of discs with questions of SOD and CoSOD, the latter of two photos, and with responses."""
    folder = tmp_path_factory.mktemp("families")
    draw_pairs(folder / "sod", 3)
    draw_groups(folder / "cosod" / "images", folder / "cosod" / "masks", {"disc": 2})
    prompts = folder / "prompts.jsonl"
    options = ["--sod", str(folder / "sod"), "--cosod", str(folder / "cosod"), "--group", "2"]
    assert main(["data", "prompts", str(prompts), *options]) == 0
    lines = []
    for asked in read_prompts(prompts):
        answer = Response("It is large.", ("the disc",), asked.task.spec.tag).text
        prompt = asked.task.spec.prompt()
        lines.append(SFTExample(asked.name, tuple(asked.images), False, asked.task, prompt, answer).to_json())
    (folder / "sft.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def train(command: str, path: Path, **values: Any) -> dict[str, list[float]]:
    """Run a training command by its recipe; its logged values by name."""
    common = {
        "output": str(path),
        "max_pixels": 4000,
        "batch_size": 2,
        "precision": "float32",
        "device": "cpu",
        "log_every": 1,
        "save_every": 10,
    }
    recipe = path.with_suffix(".yaml")
    recipe.write_text(json.dumps(common | values))
    assert main(["train", command, "--config", str(recipe)]) == 0
    found: dict[str, list[float]] = {}
    for _, name, value in read_metrics(path / "metrics.csv"):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("family", tiny_policies.FAMILIES)
def test_a_family_is_fine_tuned_rewarded_and_predicts(
    family: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tiny_policies.FAMILIES[family](tmp_path / "start")
    where = {"image_root": str(data)}
    losses = train(
        "sft",
        tmp_path / "sft",
        policy=str(start),
        train=str(data / "sft.jsonl"),
        accumulation=1,
        workers=0,
        learning_rate=5e-3,
        max_steps=6,
        **where,
    )["loss"]
    assert losses[-1] < losses[0] - 0.2
    metrics = train(
        "cgpo",
        tmp_path / "cgpo",
        start=str(tmp_path / "sft" / "policy"),
        train=str(data / "prompts.jsonl"),
        max_tokens=12,
        max_steps=2,
        lora_rank=4,
        learning_rate=1e-3,
        **where,
    )
    assert len(metrics["loss"]) == 2
    assert all(0 < value < 1 for value in metrics["confidence/mean"])
    before, after = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("sft", "cgpo"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    photos = sorted((data / "sod").rglob("*.jpg"))[:2]
    capsys.readouterr()
    policy = ["--policy", str(tmp_path / "cgpo" / "policy"), "--max-pixels", "4000"]
    for task in ("sod", "cosod"):
        out = tmp_path / task
        command = ["predict", "--task", task, *policy, "--out", str(out), "--json", *map(str, photos)]
        assert main(command) == 0
        for photo in photos:
            mask = np.asarray(Image.open(out / f"{photo.stem}_mask.png"))
            assert mask.shape == Image.open(photo).size[::-1]
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert all(0 <= row["policy_confidence"] <= 1 for row in rows)
