"""Writing a trained model for use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from saliency_r1.files import write_bytes_atomic
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.segmenter_model import CONFIG_FILE, WEIGHTS_FILE, NanoSegmenterModel
from saliency_r1.policy.prompts import mark_fine_tuned


def export_policy(model: Any, processor: Any, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a policy for use: weights in `dtype`, no dropout, processor and tokenizer beside them.

    The folder appears, or is replaced, in one step.
    """
    folder = Path(folder)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    config = type(model.config).from_dict({**model.config.to_dict(), "adapter_dropout": 0.0})
    config.dtype = dtype
    copy = type(model)(config).to(dtype)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def export_trained(trainer: Any, processor: Any, folder: Path) -> None:
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


def export_segmenter(model: NanoSegmenterModel, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` in float16, as the package ships them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    write_bytes_atomic(folder / WEIGHTS_FILE, save(weights))
    write_bytes_atomic(folder / CONFIG_FILE, model.config.to_json().encode())
