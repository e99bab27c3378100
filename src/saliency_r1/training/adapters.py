"""What the trainers of large policies share: LoRA, sharded weights, and writing the trained policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from saliency_r1.errors import SaliencyError
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.policy.prompts import mark_fine_tuned
from saliency_r1.training.sft import export_policy

# The language model's alone: the vision towers of Qwen2.5-VL have layers of the same names.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def lora(rank: int, alpha: float) -> Any:
    """Adapters in the layers of the language model.

    Args:
        rank: of each.
        alpha: the scale times the rank.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=int(alpha * rank), target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )


def check_sharding(output: Path, lora_rank: int, *, one_process_answers: bool = False) -> None:
    """Refuse, before anything is loaded, what does not go with weights that are cut over processes.

    Args:
        output: the run's folder, for the error.
        lora_rank: of adapters, 0 for none.
        one_process_answers: whether the first process alone is to run the whole model now and then.

    Raises:
        SaliencyError: if `accelerate launch` was told to use FSDP or DeepSpeed, and one of these is wanted.
    """
    flags = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
    sharding = next(
        (kind for kind, flag in flags.items() if os.environ.get(flag, "").lower() == "true"), None
    )
    if sharding and lora_rank:
        raise SaliencyError(
            f"recipe of {output}: lora_rank is {lora_rank} under {sharding}, into whose cut weights adapters "
            "cannot be merged; train all weights (lora_rank=0), or launch with --multi_gpu: a copy a GPU"
        )
    if sharding and one_process_answers:
        raise SaliencyError(
            f"recipe of {output}: validation under {sharding}, where no process holds the whole model; leave "
            "validation out, and evaluate policy/ afterwards"
        )


def export(trainer: Any, processor: Any, folder: Path) -> None:
    """Write a trainer's policy for use, adapters merged into the weights; to be called by all processes.

    A sharded model is gathered first (FSDP with full state dicts, ZeRO-3 with gathered weights on saving).
    """
    accelerator = trainer.accelerator
    # The engine of DeepSpeed, and it alone, knows how to gather what it cut.
    state = accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)
    if trainer.is_world_process_zero():
        model = accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            model.load_state_dict(state)
            model, state = model.merge_and_unload(), None
        if isinstance(model, NanoForImageTextToText):
            export_policy(model, processor, folder)
        else:
            mark_fine_tuned(model.config)
            if state is not None and trainer.args.bf16:
                # Trained in float32, of use in what it was computed with, and half as large.
                state = {
                    name: tensor.bfloat16() if tensor.is_floating_point() else tensor
                    for name, tensor in state.items()
                }
            model.save_pretrained(folder, state_dict=state)
            if state is not None and trainer.args.bf16:
                model.config.dtype = torch.bfloat16
                model.config.save_pretrained(folder)
            processor.save_pretrained(folder)
    accelerator.wait_for_everyone()
