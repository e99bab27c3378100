"""Checkpoints of transformers' Trainer that can be trusted after a kill.

The Trainer writes a checkpoint file by file. Each one gets a list of its files and their sizes as its last
file, so a checkpoint without the list, or with files that do not fit it, was cut off and is never resumed
from.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic

COMPLETE = "complete.json"
_PREFIX = "checkpoint-"

_log = logging.getLogger(__name__)


def mark_complete(checkpoint: Path) -> None:
    """Say that all files of a checkpoint are written."""
    write_bytes_atomic(checkpoint / COMPLETE, json.dumps(_sizes(checkpoint), indent=1).encode())


def is_complete(checkpoint: Path) -> bool:
    """Whether every file is there with the size that it had."""
    try:
        return json.loads((checkpoint / COMPLETE).read_text()) == _sizes(checkpoint)
    except (OSError, ValueError):
        return False


def checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints of a run folder, the oldest first."""
    return sorted(output.glob(f"{_PREFIX}*"), key=step_of)


def checkpoint_to_resume(output: Path, resume: bool) -> Path | None:
    """Return the newest whole checkpoint of a run folder, or None; cut-off ones are deleted.

    Raises:
        SaliencyError: if the run has checkpoints and `resume` is False.
    """
    found = checkpoints(output)
    if found and not resume:
        raise SaliencyError(
            f"{output} holds a run already: go on with --resume, replace it with "
            "--overwrite, or choose another output"
        )
    for checkpoint in reversed(found):
        if is_complete(checkpoint):
            return checkpoint
        _log.warning("%s was cut off: deleted", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE)
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}


class WholeCheckpoints:
    """For a trainer of transformers, before it in the list of bases: checkpoints that can be trusted.

    Each is marked when whole. Its weights are read as `from_pretrained` reads them: the Trainer itself takes
    the names in the file for those in the model, which differ for Qwen2.5-VL and others, and continues with
    the weights of the start after a warning.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = super()
        trainer._save_checkpoint(model, trial)
        own: Any = self
        own.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if own.args.should_save:
            mark_complete(Path(str(own.args.output_dir)) / f"{_PREFIX}{own.state.global_step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        own: Any = self
        model = own.model if model is None else model
        if own.is_fsdp_enabled or own.is_deepspeed_enabled or not isinstance(model, PreTrainedModel):
            trainer: Any = super()
            trainer._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept = type(model).from_pretrained(
            resume_from_checkpoint, config=model.config, dtype=model.dtype, use_safetensors=True
        )
        model.load_state_dict(kept.state_dict())

    def _load_best_model(self) -> None:
        """As when a run is resumed; the Trainer itself warns of weights that are tied to others."""
        own: Any = self
        if own.is_fsdp_enabled or own.is_deepspeed_enabled or not isinstance(own.model, PreTrainedModel):
            trainer: Any = super()
            trainer._load_best_model()
            return
        self._load_from_checkpoint(own.state.best_model_checkpoint)
