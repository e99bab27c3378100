"""The base of the recipes of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trl import SFTConfig

from saliency_r1.training.run import PolicyRecipe, trainer_arguments


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe(PolicyRecipe):
    """A recipe of `saliency-r1 train sft`, of the nano policy or a large one.

    Attributes:
        epochs: passes over `train`.
        max_steps: optimiser steps in place of `epochs`, if positive.
    """

    epochs: float = 1.0


def fine_tuning_settings(recipe: FineTuningRecipe, **more: Any) -> SFTConfig:
    """Return the settings of TRL's trainer; `more` goes over what all recipes share."""
    validated = recipe.validation is not None
    shared = {
        "num_train_epochs": recipe.epochs,
        "per_device_eval_batch_size": recipe.batch_size,
        "eval_strategy": "steps" if validated else "no",
        "eval_steps": recipe.validate_every if validated else None,
        "prediction_loss_only": True,
        "remove_unused_columns": False,
        "max_length": None,
    }
    return SFTConfig(**{**trainer_arguments(recipe), **shared, **more})
