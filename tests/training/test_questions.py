"""Training shows a policy of any family what prediction shows it, photos of odd shapes included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_policies

pytest.importorskip("trl")

from saliency_r1 import nano
from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.true_instances import encode
from saliency_r1.tasks import Task
from saliency_r1.training.reinforcement.train import CGPORecipe, build_trainer, rl_settings

SIZES = ((3000, 10), (300, 200), (40, 50))
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "nano": lambda folder: nano.POLICY_FOLDER,
    **tiny_policies.FAMILIES,
}


def questions(folder: Path) -> list[PromptExample]:
    """A question about each photo of noise, and one about two."""
    rng = np.random.default_rng(0)
    asked = []
    for number, (width, height) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((height, width), bool)
        mask[:, : width // 2] = True
        asked.append(
            PromptExample(
                str(number), Task.SOD, Task.SOD.spec.prompt(), (f"{number}.png",), ((encode(mask),),)
            )
        )
    both = tuple(one.images[0] for one in asked[:2]), tuple(one.masks[0] for one in asked[:2])
    return [*asked, PromptExample("both", Task.COSOD, Task.COSOD.spec.prompt(), *both)]


def trainer_of(start: Path, folder: Path, examples: list[PromptExample], **changes: Any) -> Any:
    recipe = CGPORecipe(
        train=folder / "unused.jsonl",
        image_root=folder,
        output=folder / "out",
        start=str(start),
        max_steps=1,
        batch_size=1,
        accumulation=4,
        max_tokens=3,
        device="cpu",
        **changes,
    )
    return build_trainer(recipe, rl_settings(recipe), examples)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_sees_what_prediction_sees(family: str, tmp_path: Path) -> None:
    start = FAMILIES[family](tmp_path / "start")
    examples = questions(tmp_path)
    trainer, policy, photos = trainer_of(start, tmp_path, examples, max_pixels=4000)
    trainer.model.train()
    for row, example in zip(trainer.train_dataset, examples, strict=True):
        shown = policy._inputs([[photos(key) for key in example.keys]], example.prompt)
        with torch.no_grad():
            trained = trainer._generate_and_score_completions([row])
        assert torch.equal(trained["prompt_ids"], shown["input_ids"]), example.name
        pixels = [name for name in shown if name not in ("input_ids", "attention_mask")]
        assert any("pixel" in name for name in pixels)
        for name in pixels:
            if name.endswith("token_type_ids"):  # of the question; training appends those of the answer
                trained[name] = trained[name][:, : shown[name].shape[1]]
            assert torch.equal(trained[name], shown[name]), (example.name, name)
    before = [weight.clone() for weight in trainer.model.parameters() if weight.requires_grad]
    trainer.train()  # the reward compares whole masks with whole photos
    after = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    assert trainer.state.global_step == 1
    assert len(before) == len(after)


def test_a_smaller_bound_is_kept_by_kinds_that_do_not_bound_themselves(tmp_path: Path) -> None:
    start = tiny_policies.FAMILIES["llava"](tmp_path / "start")
    trainer, _, photos = trainer_of(start, tmp_path, questions(tmp_path), max_pixels=4000)
    for row in trainer.train_dataset:
        assert all(image.width * image.height <= 4000 for image in row["images"])
        assert [photo.size for photo in row["photos"]] == [photos(key).size for key in row["example"].keys]
    assert photos.shown(("1.png", False)) is photos.shown(("1.png", False))  # made once
