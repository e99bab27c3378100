"""Training of the nano segmenter: photos, expressions and masks in, `final/model.safetensors` out.

saliency-r1 train segmenter --config recipes/nano/segmenter.yaml
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from saliency_r1.data.layouts import load_splits
from saliency_r1.device import choose_device
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.imagenet import imagenet_classes
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.segmenter_model import CONFIG_FILE, NanoSegmenterModel, SegmenterConfig, normalise
from saliency_r1.nano.words import PAD, WordList
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import InstancePhoto, open_photos
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import Mix, ReferringPhotos
from saliency_r1.training.checkpoints import checkpoints, mark_complete, step_of
from saliency_r1.training.exporting import export_segmenter
from saliency_r1.training.logs import RunLog
from saliency_r1.training.progress import ProgressLines
from saliency_r1.training.run import SEGMENTER, begin
from saliency_r1.training.segmenter.alignment import align
from saliency_r1.training.segmenter.loss import segmentation_loss
from saliency_r1.training.segmenter.recipe import SegmenterRecipe
from saliency_r1.training.segmenter.start import build_model
from saliency_r1.training.segmenter.validation import validate

STATE_FILE = "state.safetensors"
_TRANSFORMER = ("words", "order", "text", "text_norm", "image_norm", "joint", "film", "norm", "place")


@dataclass(frozen=True)
class _Data:
    """The data that a run learns from and is validated on.

    `nouns` are of the photos, which lie packed in the folder `cached`.
    """

    photos: PackedPhotos
    nouns: list[Nouns | None]
    cached: Path
    instance_photos: Sequence[InstancePhoto]
    samples: ReferringPhotos
    held_out: PackedPhotos
    composed: dict[str, ReferringPhotos]

    @classmethod
    def open(cls, recipe: SegmenterRecipe) -> _Data:
        """Read what the recipe names."""
        train, held_out = load_splits(recipe.data)
        places = recipe.cache / "train", recipe.cache / "validation"
        photos, checks = (
            PackedPhotos.open(samples, place, recipe.image_size)
            for samples, place in zip((train, held_out), places, strict=True)
        )
        book = NameBook.from_samples(train)
        nouns = [Nouns.of(sample.synset, book) if sample.synset else None for sample in train + held_out]
        known, unknown = nouns[: len(train)], nouns[len(train) :]
        instance_photos = (
            open_photos(recipe.instance_data, "train", recipe.image_size, recipe.teacher)
            if recipe.instances
            else []
        )
        own, others = (
            (Foregrounds.open(samples, place, recipe.image_size), book) if recipe.scenes else None
            for samples, place in zip((train, held_out), places, strict=True)
        )
        samples = ReferringPhotos(photos, known, photos.colours(), recipe.seed, recipe, own, instance_photos)
        unseen = checks, unknown, checks.colours()
        composed = {"composed": ReferringPhotos(*unseen, 0, Mix(composed=1.0))}
        if recipe.scenes:
            composed["scenes"] = ReferringPhotos(*unseen, 0, Mix(scenes=1.0), others)
        return cls(photos, known, places[0], instance_photos, samples, checks, composed)


class _Batches(Dataset[dict[str, Tensor]]):
    """Samples as tensors, for a DataLoader."""

    def __init__(self, photos: ReferringPhotos, model: SegmenterConfig) -> None:
        self.photos, self.length = photos, model.length
        self.word_list = WordList(model.words)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        sample = self.photos[number]
        return {
            "image": torch.from_numpy(np.array(sample.image)),
            "words": torch.tensor(self.word_list.encode(sample.expressions, self.length)),
            "masks": torch.from_numpy(np.array(sample.masks)),
        }


def _batched(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Photos side by side, expressions and masks one after the other, and how many each photo has."""
    words = torch.cat([each["words"] for each in samples])
    return {
        "image": torch.stack([each["image"] for each in samples]),
        "words": words[:, : int((words != PAD).sum(1).max())],
        "masks": torch.cat([each["masks"] for each in samples]),
        "counts": torch.tensor([len(each["words"]) for each in samples]),
    }


@dataclass(frozen=True)
class _State:
    """The state that a step changes: the model, its optimiser, and the average that is exported."""

    model: NanoSegmenterModel
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel

    @property
    def average(self) -> NanoSegmenterModel:
        """The averaged model."""
        average: NanoSegmenterModel = self.averaged.module  # type: ignore[assignment]
        return average


def train_segmenter(recipe: SegmenterRecipe, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Train the nano segmenter; arguments and errors as of `fine_tuning.nano.train_sft`.

    Returns:
        The folder with `config.json` and `model.safetensors` (float16).
    """
    checkpoint = begin(recipe, resume=resume, overwrite=overwrite)
    device = choose_device(recipe.device)
    torch.manual_seed(recipe.seed)
    data = _Data.open(recipe)
    nouns = [each for each in data.nouns if each]
    model = build_model(recipe, nouns, checkpoint)
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if checkpoint is None and (recipe.realign or recipe.start is None):
        align(
            model,
            data.photos,
            data.nouns,
            data.cached,
            recipe.seed,
            device,
            recipe.align_steps,
            others=data.instance_photos,
            classes=imagenet_classes(recipe.imagenet) if recipe.imagenet else None,
        )
    model.backbone.freeze(min(recipe.frozen_blocks))
    state = _State(
        model,
        torch.optim.AdamW(parameter_groups(model, recipe), weight_decay=recipe.weight_decay),
        AveragedModel(model, multi_avg_fn=_moving_average(recipe.average)),
    )
    step = restore(checkpoint, state) if checkpoint else 0
    arithmetic = "bfloat16 autocast" if recipe.bfloat16 else "float32"
    print(f"training on {device}, {arithmetic}, from step {step}", flush=True)
    _train(recipe, data, state, step, device)
    if recipe.start_share:
        mix(state.average, build_model(recipe, nouns, None).to(device), recipe.start_share)
    folder = recipe.output / SEGMENTER
    export_segmenter(state.average, folder)
    return folder


def _train(recipe: SegmenterRecipe, data: _Data, state: _State, step: int, device: torch.device) -> None:
    """Take the steps that are left, and log, validate and save when it is time."""
    log = RunLog(recipe)
    log.begin(step)
    started, before = time.perf_counter(), log.last("seconds")
    recent: list[tuple[float, float]] = []
    lines = ProgressLines("segmenter", recipe.max_steps, step)
    try:
        for batch in _loader(recipe, data, state.model.config, step):
            recent.append(train_step(state.model, state.optimizer, batch, step, recipe, device))
            state.averaged.update_parameters(state.model)
            step += 1
            lines.at(step)
            last = step == recipe.max_steps
            if step % recipe.log_every == 0 or last:
                loss, iou = np.mean(recent, 0).tolist()
                seconds = round(before + time.perf_counter() - started, 1)
                log.add(step, {"loss": loss, "iou": iou, "seconds": seconds})
                lines.report(step, {"loss": loss, "iou": iou}, seconds / step)
                recent = []
            if step % recipe.validate_every == 0 or last:
                found = validate(state.average, data.held_out, data.composed, recipe, device)
                found = {f"validation/{name}": value for name, value in found.items()}
                log.add(step, found)
                lines.report(step, found)
            if step % recipe.save_every == 0 or last:
                save_checkpoint(recipe, state, step)
    finally:
        lines.end()
    log.end()


def _loader(
    recipe: SegmenterRecipe, data: _Data, model: SegmenterConfig, step: int
) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        _Batches(data.samples, model),
        batch_size=recipe.batch_size,
        sampler=range(step * recipe.batch_size, recipe.max_steps * recipe.batch_size),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        persistent_workers=recipe.workers > 0,
        collate_fn=_batched,
    )


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """A moving average for `AveragedModel`, over all steps until the decay allows for no more."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    return update


@torch.no_grad()
def mix(model: NanoSegmenterModel, start: NanoSegmenterModel, share: float) -> None:
    """Move a model's weights towards those of its start, by a share in [0, 1]."""
    old = start.state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.lerp_(old[name], share)


def parameter_groups(model: NanoSegmenterModel, recipe: SegmenterRecipe) -> list[dict[str, Any]]:
    """Free parameters in three groups, each with its peak learning rate; no decay on vectors."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        rate = recipe.learning_rate
        if part in ("backbone", "match_image", "match_words"):
            rate = recipe.backbone_rate
        elif part in _TRANSFORMER:
            rate = recipe.transformer_rate
        decay = (
            recipe.weight_decay
            if parameter.ndim > 1 and part not in ("words", "match_words", "place", "order")
            else 0.0
        )
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rate_factor(step: int, recipe: SegmenterRecipe) -> float:
    """Linear warm-up, then cosine decay to zero at the last step."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.max_steps - recipe.warmup_steps)
    return float(0.5 * (1 + np.cos(np.pi * min(done, 1.0))))


def train_step(
    model: NanoSegmenterModel,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    step: int,
    recipe: SegmenterRecipe,
    device: torch.device,
) -> tuple[float, float]:
    """One optimiser step; returns the loss and the mean IoU of the batch."""
    model.train()
    stage = min(step // max(1, recipe.thaw_steps), len(recipe.frozen_blocks) - 1)
    model.backbone.freeze(recipe.frozen_blocks[stage])
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate_factor(step, recipe)
    pixels = normalise(batch["image"].to(device))
    target = batch["masks"].to(device)[:, None].float() / 255
    if recipe.early_size and step < recipe.early_share * recipe.max_steps:
        side = (recipe.early_size, recipe.early_size)
        pixels = F.interpolate(pixels, side, mode="bilinear", antialias=True)
        target = F.interpolate(target, side, mode="bilinear", antialias=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
        encoded = model.encode(pixels).repeat(batch["counts"].to(device))
        output = model.segment(encoded, batch["words"].to(device))
    loss, iou = segmentation_loss(output, target, recipe.edge_weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    return float(loss.detach()), float(iou.mean())


def save_checkpoint(recipe: SegmenterRecipe, state: _State, step: int) -> None:
    """Write `checkpoint-<step>` whole or not at all, then remove all but the newest `recipe.keep`."""
    tensors = {
        f"optimizer.{number}.{key}": value
        for number, slots in state.optimizer.state_dict()["state"].items()
        for key, value in slots.items()
    }
    tensors |= {f"model.{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.averaged.state_dict().items()}
    final = recipe.output / f"checkpoint-{step}"
    partial = recipe.output / f".checkpoint-{step}.{os.getpid()}"
    partial.mkdir(parents=True, exist_ok=True)
    whole = {name: value.contiguous() for name, value in tensors.items()}
    save_file(whole, partial / STATE_FILE, metadata={"step": str(step)})
    (partial / CONFIG_FILE).write_text(state.model.config.to_json())
    mark_complete(partial)
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    for old in checkpoints(recipe.output)[: -recipe.keep]:
        shutil.rmtree(old)


def restore(checkpoint: Path, state: _State) -> int:
    """Load a checkpoint into a model of its sizes, its optimiser and its average; return its step."""
    tensors = load_file(checkpoint / STATE_FILE)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    state.model.load_state_dict(parts["model"])
    state.averaged.load_state_dict(parts["average"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        number, _, key = name.partition(".")
        slots.setdefault(int(number), {})[key] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return step_of(checkpoint)
