"""Supervised fine-tuning of any vision-language policy, by the lines that the nano policy learns from.

    saliency-r1 train sft --config recipes/qwen2.5-vl-7b/sft.yaml

A recipe with the entry `policy` comes here. TRL's SFTTrainer reads photos as their turn comes; the loss is on
the response alone. The run folder is that of every other stage, and its `policy/` is marked as fine-tuned,
adapters merged, so that it is asked plainly from then on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import set_seed
from trl import SFTTrainer

from saliency_r1.policy.thinking import check_reasoning_is_kept
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.training.adapters import check_sharding, freeze_vision, lora
from saliency_r1.training.checkpoints import WholeCheckpoints
from saliency_r1.training.exporting import export_trained
from saliency_r1.training.fine_tuning.recipe import FineTuningRecipe, fine_tuning_settings
from saliency_r1.training.fine_tuning.task_batches import KindsApart
from saliency_r1.training.logs import TrainerLog
from saliency_r1.training.progress import TrainerLines
from saliency_r1.training.reinforcement.questions import Photos
from saliency_r1.training.run import POLICY, begin
from saliency_r1.writing.sft_set import SFTExample, read_examples


@dataclass(frozen=True, kw_only=True)
class LargeSFTRecipe(FineTuningRecipe):
    """A recipe of `train sft` for a policy that it names.

    Attributes:
        policy: folder or hub name of an image-text-to-text model; it is not the nano policy.
        revision: revision of the policy on the hub.
        max_pixels: maximum number of pixels of a photo for the policy; None for 1,003,520.
        lora_rank: train adapters of this rank in the language model's layers; 0 to train all weights.
        lora_alpha: their scale times the rank.
        freeze_vision: whether the vision encoder is left as it is; with adapters it is in any case.
        attn_implementation: `auto` (FlashAttention 2 where package, GPU and model have it), `sdpa`, `eager`
            or `flash_attention_2`.
        tasks_apart: whether a batch holds examples of one task with as many photos each, so that little is
            padded.
        gradient_checkpointing: whether activations are computed again in the backward pass, to save memory.
        precision: precision of the arithmetic; with LoRA also of the frozen weights.
    """

    policy: str
    revision: str | None = None
    max_pixels: int | None = None
    lora_rank: int = 0
    lora_alpha: float = 2.0
    freeze_vision: bool = False
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    tasks_apart: bool = True
    batch_size: int = 4
    accumulation: int = 4
    learning_rate: float = 1e-5
    gradient_checkpointing: bool = True
    log_every: int = 10
    validate_every: int = 200
    save_every: int = 200
    workers: int = 4


class LargeSFTTrainer(WholeCheckpoints, SFTTrainer):
    """SFTTrainer without a card of its own, and with an order of the examples that keeps kinds apart.

    Args:
        kinds: that of each example, see `KindsApart`; None for any order.
        **arguments: SFTTrainer's.
    """

    def __init__(self, *, kinds: Sequence[Hashable] | None, **arguments: Any) -> None:
        self._kinds = kinds
        super().__init__(**arguments)

    def _get_train_sampler(self, *arguments: Any, **options: Any) -> Any:
        if self._kinds is None:
            return super()._get_train_sampler(*arguments, **options)
        batch = self.args.train_batch_size * self.args.world_size
        return KindsApart(self._kinds, batch, self.args.seed)

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
            "images": [[photos.shown(key) for key in example.keys] for example in chosen],
        }

    return Dataset.from_dict({"number": list(range(len(examples)))}).with_transform(rows)


def train_large_sft(recipe: LargeSFTRecipe, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Fine-tune a vision-language policy; arguments and result as of `fine_tuning.nano.train_sft`.

    Raises:
        SaliencyError: for a policy that cannot be read, or adapters where the weights are sharded, too.
    """
    check_sharding(recipe.output, recipe.lora_rank)
    train = read_examples(recipe.train)
    validation = read_examples(recipe.validation) if recipe.validation else []
    set_seed(recipe.seed)
    settings = fine_tuning_settings(recipe, gradient_checkpointing=recipe.gradient_checkpointing)
    with settings.main_process_first():  # cut-off checkpoints are deleted by one process
        checkpoint = begin(recipe, resume=resume, overwrite=overwrite, first=settings.process_index == 0)
    frozen = recipe.lora_rank > 0 and recipe.bfloat16
    policy = TransformersPolicy.from_pretrained(
        recipe.policy,
        device=str(settings.device),
        dtype=torch.bfloat16 if frozen else torch.float32,
        revision=recipe.revision,
        max_pixels=recipe.max_pixels,
        attn_implementation=recipe.attn_implementation,
    )
    check_reasoning_is_kept(policy.processor, recipe.policy)
    if recipe.freeze_vision:
        freeze_vision(policy.model)
    photos = Photos(recipe.image_root, policy.seen)
    trainer = LargeSFTTrainer(
        model=policy.model,
        args=settings,
        processing_class=policy.processor,
        train_dataset=example_dataset(train, photos),
        eval_dataset=example_dataset(validation, photos) if validation else None,
        peft_config=lora(recipe.lora_rank, recipe.lora_alpha) if recipe.lora_rank else None,
        callbacks=[TrainerLog(recipe)],
        kinds=[(one.task, len(one.images)) for one in train] if recipe.tasks_apart else None,
    )
    TrainerLines.of(trainer, "policy")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    folder = recipe.output / POLICY
    export_trained(trainer, policy.processor, folder)
    return folder
