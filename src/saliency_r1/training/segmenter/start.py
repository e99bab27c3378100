"""The nano segmenter before its first step: new, or on the weights of an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from saliency_r1.errors import SaliencyError
from saliency_r1.language.expressions import Nouns, vocabulary
from saliency_r1.language.imagenet import imagenet_classes
from saliency_r1.nano.segmenter_model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    NanoSegmenterModel,
    SegmenterConfig,
    resized_places,
)
from saliency_r1.scenes.instance_photos import category_names, vocabulary_of
from saliency_r1.scenes.scene_expressions import extra_words
from saliency_r1.training.segmenter.recipe import SegmenterRecipe


def build_model(
    recipe: SegmenterRecipe, nouns: list[Nouns], checkpoint: Path | None = None
) -> NanoSegmenterModel:
    """A model as the checkpoint's, or as `recipe.start`'s, or a new one on ImageNet's backbone."""
    if checkpoint is not None:
        return NanoSegmenterModel(SegmenterConfig.load(checkpoint))
    added = extra_words() if recipe.scenes or recipe.instances else []
    if recipe.instances:
        added += vocabulary_of(category_names(recipe.instance_data))
    if recipe.imagenet:
        added += vocabulary(imagenet_classes(recipe.imagenet).values())
    sizes = SegmenterConfig(
        tuple(dict.fromkeys(vocabulary(nouns) + added)),
        recipe.image_size,
        recipe.width,
        recipe.layers,
        pyramid=recipe.pyramid,
        finest=recipe.finest,
        backbone=recipe.backbone,
    )
    if recipe.start:
        return started(recipe.start, sizes)
    model = NanoSegmenterModel(sizes)
    model.backbone.load_imagenet()
    model.semantics.load_imagenet()
    return model


def started(folder: Path, sizes: SegmenterConfig) -> NanoSegmenterModel:
    """Build a model of these sizes on a saved one's weights and words; what that one lacks starts new.

    Raises:
        SaliencyError: if the folder holds no segmenter of these channels.
    """
    try:
        words = tuple(json.loads((folder / CONFIG_FILE).read_text())["words"])
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SaliencyError(f"start={folder} holds no nano segmenter: {error}") from None
    model = NanoSegmenterModel(replace(sizes, words=words))
    model.semantics.load_imagenet()
    state = {name: value.float() for name, value in weights.items() if not name.startswith("semantics.")}
    state["place"] = resized_places(state["place"], sizes.image_size // 16)
    try:
        missing = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SaliencyError(f"start={folder} has other sizes: {reason}") from None
    if missing.unexpected_keys:
        raise SaliencyError(f"start={folder} has the unknown weights {missing.unexpected_keys[0]}, ...")
    return model.with_words(sizes.words)
