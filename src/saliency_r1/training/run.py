"""The base of every training run: a recipe, a folder, and a way to resume after a kill.

A run folder holds `recipe.json`, `metrics.csv`, `tensorboard/`, `checkpoint-*` and at the end the trained
model in `policy/` or `final/`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from saliency_r1.device import choose_device, computes_bfloat16
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.training.checkpoints import checkpoint_to_resume

RECIPE = "recipe.json"
METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
POLICY = "policy"
SEGMENTER = "final"


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """The base of every recipe of `saliency-r1 train`.

    Attributes:
        output: the run's folder.
        max_steps: optimiser steps.
        batch_size: examples of one gradient pass on one device.
        learning_rate: the peak.
        warmup: share of the steps, in [0, 1), in which the rate rises linearly.
        weight_decay: weight decay of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        precision: precision of the arithmetic; `auto` is bfloat16 where the device has instructions for it,
            and float32 elsewhere.
        device: `auto`, `cpu`, `cuda`.
        seed: random seed of weights, order, dropout and sampling.
        log_every, validate_every, save_every: in optimiser steps.
        keep: how many of the newest checkpoints are kept, at least 2.
        workers: processes that read and prepare pictures.

    Raises:
        ValueError: for values out of range.
    """

    output: Path
    max_steps: int = -1
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 500
    keep: int = 2
    workers: int = 0

    OLD_KEYS: ClassVar[dict[str, str]] = {}
    """The advice for keys that recipes had earlier."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "log_every", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: choose 1 or more")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}: choose a share of the steps, in [0, 1)")
        if self.keep < 2:
            raise ValueError(f"keep is {self.keep}: choose 2 or more, or a kill while saving loses the run")

    @property
    def bfloat16(self) -> bool:
        """Whether the arithmetic is in bfloat16."""
        if self.precision == "auto":
            return computes_bfloat16(choose_device(self.device))
        return self.precision == "bfloat16"


@dataclass(frozen=True, kw_only=True)
class PolicyRecipe(RunRecipe):
    """The base of the recipes of policies.

    Attributes:
        train: JSON lines to learn from.
        image_root: where the photo paths of the lines begin.
        validation: JSON lines held out; None for no validation.
        accumulation: gradient passes of one optimiser step.
    """

    train: Path
    image_root: Path
    validation: Path | None = None
    accumulation: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulation < 1:
            raise ValueError(f"accumulation is {self.accumulation}: choose 1 or more")


def check_keep_best(recipe: PolicyRecipe) -> None:
    """Check that a recipe which keeps the best checkpoint validates each of them.

    Raises:
        ValueError: if it does not.
    """
    if recipe.validation is None:
        raise ValueError("keep_best needs validation, which is null: give a file, or set keep_best to false")
    if recipe.save_every % recipe.validate_every:
        raise ValueError(
            f"keep_best needs each checkpoint validated: save_every is {recipe.save_every}, which is no "
            f"multiple of validate_every, {recipe.validate_every}"
        )


def begin(recipe: RunRecipe, *, resume: bool, overwrite: bool = False, first: bool = True) -> Path | None:
    """Return the checkpoint from which a run continues, or None for a run from the start.

    Args:
        recipe: recipe of the run.
        resume: whether to go on from the newest whole checkpoint, if there is one.
        overwrite: whether to delete what an earlier run left in the folder.
        first: whether this process is the first of those that train together; it alone deletes.

    Raises:
        SaliencyError: if both are asked for, or the folder holds a run and neither is.
    """
    if resume and overwrite:
        raise SaliencyError("--resume and --overwrite: choose one, to go on or to start anew")
    if first and recipe.precision == "bfloat16" and not computes_bfloat16(choose_device(recipe.device)):
        print(
            "precision: bfloat16 is many times slower than float32 on this device, which has no instructions "
            "for it; precision=auto chooses what is fast",
            file=sys.stderr,
        )
    if overwrite:
        if first:
            clear(recipe.output)
        return None
    return checkpoint_to_resume(recipe.output, resume)


def clear(output: Path) -> None:
    """Delete what a run wrote into its folder, and nothing else."""
    for path in (*output.glob("checkpoint-*"), *(output / name for name in (TENSORBOARD, POLICY, SEGMENTER))):
        if path.is_dir():
            shutil.rmtree(path)
    for name in (RECIPE, METRICS):
        (output / name).unlink(missing_ok=True)


def write_recipe(recipe: RunRecipe) -> None:
    """Write `recipe.json`, which tells what a run was told."""
    text = json.dumps(dataclasses.asdict(recipe), default=str)
    write_bytes_atomic(recipe.output / RECIPE, text.encode())


def trainer_arguments(recipe: PolicyRecipe) -> dict[str, Any]:
    """Return what the settings of every trainer of transformers are given."""
    return {
        "output_dir": str(recipe.output),
        "max_steps": recipe.max_steps,
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "bf16": recipe.bfloat16,
        "use_cpu": choose_device(recipe.device).type == "cpu",
        "seed": recipe.seed,
        "logging_steps": recipe.log_every,
        "logging_first_step": True,
        "save_steps": recipe.save_every,
        "save_total_limit": recipe.keep,
        "dataloader_num_workers": recipe.workers,
        "report_to": "none",
    }
