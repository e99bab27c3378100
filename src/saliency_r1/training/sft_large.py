"""Supervised fine-tuning of any vision-language policy, by the lines that the nano policy learns from.

    saliency-r1 train sft --config recipes/qwen2.5-vl-7b/sft.yaml

A recipe with the entry `policy` comes here. TRL's SFTTrainer reads photos as their turn comes; the loss is on
the response alone. The run folder is that of `training/sft.py`, and its `policy/` is marked as fine-tuned,
adapters merged, so that it is asked plainly from then on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from saliency_r1.device import choose_device
from saliency_r1.files import write_bytes_atomic
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.training.adapters import check_sharding, export, lora
from saliency_r1.training.checkpoints import WholeCheckpoints, check_keeping, checkpoint_to_resume
from saliency_r1.training.logs import RunLog
from saliency_r1.training.rl_data import Photos
from saliency_r1.writing.sft_set import SFTExample, read_examples


@dataclass(frozen=True)
class LargeSFTRecipe:
    """What `train sft` reads for a policy that is named.

    Attributes:
        policy: folder or hub name of an image-text-to-text model; it is not the nano policy.
        train: JSON lines of `data sft` or `data rationales`.
        output: the run's folder.
        image_root: where the photo paths of the lines begin.
        validation: JSON lines held out; None for no validation.
        revision: of the policy on the hub.
        max_pixels: of a photo that the policy looks at; None for 1,003,520.
        lora_rank: train adapters of this rank in the language model's layers; 0 to train all weights.
        lora_alpha: their scale times the rank.
        epochs: passes over `train`.
        max_steps: optimiser steps in place of `epochs`, if positive.
        batch_size: examples a pass and device.
        accumulation: passes an optimiser step.
        learning_rate: the peak; warmed up linearly, then a cosine to 0.
        warmup: share of the steps, in [0, 1).
        weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to it.
        gradient_checkpointing: whether activations are computed again in the backward pass, to save memory.
        precision: of the arithmetic; with LoRA also of the frozen weights.
        device: auto, cpu, cuda.
        seed: of order and adapters.
        log_every, validate_every, save_every: in optimiser steps.
        keep: newest checkpoints to keep, at least 2.
        workers: processes that read pictures.
    """

    policy: str
    train: Path
    output: Path
    image_root: Path
    validation: Path | None = None
    revision: str | None = None
    max_pixels: int | None = None
    lora_rank: int = 0
    lora_alpha: float = 2.0
    epochs: float = 1.0
    max_steps: int = -1
    batch_size: int = 4
    accumulation: int = 4
    learning_rate: float = 1e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = True
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "auto"
    seed: int = 0
    log_every: int = 10
    validate_every: int = 200
    save_every: int = 200
    keep: int = 2
    workers: int = 4

    def __post_init__(self) -> None:
        check_keeping(self.keep)
        for name in ("batch_size", "accumulation", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: choose 1 or more")


class LargeSFTTrainer(WholeCheckpoints, SFTTrainer):
    """SFTTrainer without a card of its own."""

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """None: `saliency-r1 export` writes one."""


def example_dataset(examples: Sequence[SFTExample], photos: Photos) -> Dataset:
    """A data set with the columns `prompt` and `completion` (chat messages) and `images`.

    Photos are read when a row is asked for.
    """

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [examples[number] for number in batch["number"]]
        return {
            "prompt": [[{"role": "user", "content": example.prompt}] for example in chosen],
            "completion": [[{"role": "assistant", "content": example.response}] for example in chosen],
            "images": [[photos(key) for key in example.keys] for example in chosen],
        }

    return Dataset.from_dict({"number": list(range(len(examples)))}).with_transform(rows)


def train_large_sft(recipe: LargeSFTRecipe, *, resume: bool = False) -> Path:
    """Fine-tune a vision-language policy.

    Args:
        recipe: what to do.
        resume: whether to go on from the newest whole checkpoint of `recipe.output`, if there is one.

    Returns:
        The folder of the finished policy.

    Raises:
        SaliencyError: for data or a policy that cannot be read, an output that holds a run while `resume` is
            False, or adapters where the weights are sharded.
    """
    check_sharding(recipe.output, recipe.lora_rank)
    train = read_examples(recipe.train)
    validation = read_examples(recipe.validation) if recipe.validation else []
    set_seed(recipe.seed)
    settings = _settings(recipe)
    with settings.main_process_first():  # cut-off checkpoints are deleted by one process
        checkpoint = checkpoint_to_resume(recipe.output, resume)
    frozen = recipe.lora_rank > 0 and recipe.precision == "bfloat16"
    policy = TransformersPolicy.from_pretrained(
        recipe.policy,
        device=str(settings.device),
        dtype=torch.bfloat16 if frozen else torch.float32,
        revision=recipe.revision,
        max_pixels=recipe.max_pixels,
    )
    photos = Photos(recipe.image_root)
    trainer = LargeSFTTrainer(
        model=policy.model,
        args=settings,
        processing_class=policy.processor,
        train_dataset=example_dataset(train, photos),
        eval_dataset=example_dataset(validation, photos) if validation else None,
        peft_config=lora(recipe.lora_rank, recipe.lora_alpha) if recipe.lora_rank else None,
        callbacks=[RunLog(recipe.output)],
    )
    if trainer.is_world_process_zero():
        values = json.dumps(dataclasses.asdict(recipe), default=str).encode()
        write_bytes_atomic(recipe.output / "recipe.json", values)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    folder = recipe.output / "policy"
    export(trainer, policy.processor, folder)
    return folder


def _settings(recipe: LargeSFTRecipe) -> SFTConfig:
    device = choose_device(recipe.device)
    validated = recipe.validation is not None
    return SFTConfig(
        output_dir=str(recipe.output),
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        gradient_checkpointing=recipe.gradient_checkpointing,
        bf16=recipe.precision == "bfloat16",
        use_cpu=device.type == "cpu",
        seed=recipe.seed,
        logging_steps=recipe.log_every,
        logging_first_step=True,
        eval_strategy="steps" if validated else "no",
        eval_steps=recipe.validate_every if validated else None,
        prediction_loss_only=True,
        save_steps=recipe.save_every,
        save_total_limit=recipe.keep,
        dataloader_num_workers=recipe.workers,
        remove_unused_columns=False,
        max_length=None,
        report_to="none",
    )
