"""What the trainers of large policies share: LoRA adapters, and writing the trained policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.policy.prompts import mark_fine_tuned
from saliency_r1.training.sft import export_policy

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


def export(trainer: Any, processor: Any, folder: Path) -> None:
    """Write a trainer's policy for use, adapters merged into the weights; to be called by all processes.

    A sharded model is gathered first (FSDP with full state dicts, ZeRO-3 with gathered weights on saving).
    """
    accelerator = trainer.accelerator
    state = accelerator.get_state_dict(trainer.model)
    if trainer.is_world_process_zero():
        model = accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            model.load_state_dict(state)
            model, state = model.merge_and_unload(), None
        if isinstance(model, NanoForImageTextToText):
            export_policy(model, processor, folder)
        else:
            mark_fine_tuned(model.config)
            model.save_pretrained(folder, state_dict=state)
            processor.save_pretrained(folder)
    accelerator.wait_for_everyone()
