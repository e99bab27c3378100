"""LoRA for the trainers of large policies, and checks of what sharded weights do not allow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from saliency_r1.errors import SaliencyError

# The language model's alone, which SmolVLM calls text_model: vision towers have layers of the same names.
LORA_TARGETS = r".*(language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def lora(rank: int, alpha: float) -> Any:
    """Adapters in the layers of the language model.

    Args:
        rank: rank of each adapter.
        alpha: the scale times the rank.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=int(alpha * rank), target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )


def freeze_vision(model: Any) -> None:
    """Leave the weights of the vision encoder as they are, with what the model counts to it (Qwen's merger).

    Args:
        model: an image-text-to-text model of transformers.

    Raises:
        SaliencyError: if it has no part that transformers knows as its encoder of images.
    """
    encoder = model.get_encoder(modality="image")
    if encoder is model or encoder is getattr(model, "model", None):
        raise SaliencyError(
            f"{type(model).__name__} has no vision encoder that transformers knows: leave freeze_vision out"
        )
    encoder.requires_grad_(False)


def check_sharding(output: Path, lora_rank: int) -> None:
    """Refuse, before anything is loaded, what does not go with weights that are cut over processes.

    Args:
        output: the run's folder, for the error.
        lora_rank: rank of the adapters, 0 for none.

    Raises:
        SaliencyError: if `accelerate launch` was told to use FSDP or DeepSpeed, and adapters are wanted.
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
