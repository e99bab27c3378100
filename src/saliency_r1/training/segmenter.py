"""Training of the nano segmenter: photos, expressions and masks in, `model.safetensors` out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from saliency_r1.data.layouts import load_splits
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.language.expressions import GENERIC, Nouns, vocabulary
from saliency_r1.language.imagenet import imagenet_classes
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.segmenter_model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    NanoSegmenterModel,
    SegmenterConfig,
    SegmenterOutput,
    normalise,
    resized_places,
)
from saliency_r1.nano.words import PAD, WordList
from saliency_r1.scenes.instance_photos import category_names, open_photos, vocabulary_of
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import Mix, ReferringPhotos
from saliency_r1.scenes.scene_expressions import extra_words
from saliency_r1.scenes.scenes import Foregrounds
from saliency_r1.training.alignment import align


@dataclass
class SegmenterTraining:
    """The settings of `saliency-r1 train segmenter`, one line each in its YAML.

    Attributes:
        data: the DUTS folder, or one of photos and masks.
        out: where checkpoints, logs and the final weights go.
        cache: where the packed photos go.
        steps: optimiser steps.
        batch_size: photos a step; each has one or two expressions.
        learning_rate: peak, of the pyramid and the heads.
        transformer_rate: peak, of the word embedding and the transformer.
        backbone_rate: peak, of the backbone's free blocks and of the meanings of words and cells.
        weight_decay: of AdamW.
        warmup_steps: of linear warm-up; cosine decay to zero follows.
        frozen_blocks: how many of the backbone's first blocks have no gradient (the stem has none either):
            one number for each stage of thawing.
        thaw_steps: steps of each stage but the last.
        early_size, early_share: the side in pixels at which the first share of the steps is trained, because
            it is cheaper; the rest is trained at `image_size`.
        average: decay of the moving average of the weights, which is what is validated and exported; less in
            the first steps, so that a short run's average is not its start.
        edge_weight: how much more a pixel near a boundary counts than one far from it.
        init: a folder with weights to start from instead of ImageNet's, or empty. Its vocabulary grows by the
            words that the mix adds. Weights of the layout before 0.2.0 can be started from too.
        realign: whether names and regions are aligned before the first step although there is an `init`.
        align_steps: steps of that alignment.
        composed, negative, crop, alone, scenes, instances: the mix of samples, see `Mix`.
        instance_data: folders of COCO json sets for the share of `instances`.
        teacher: folder of a teacher's soft masks of their photos, see `instance_photos.open_photos`, or
            empty.
        imagenet: `imagenet1k.json` for the names of ImageNet's classes, or empty.
        seed: of weights and samples.
        validate_every, save_every: steps between validations and checkpoints.
        validation_photos: how many held-out photos a validation looks at.
        workers: processes that prepare samples.
        device: "auto", "cpu" or "cuda".
        bf16: autocast to bfloat16.
        width, layers, pyramid, finest, image_size, backbone: sizes of the model, see `SegmenterConfig`.
    """

    data: str
    out: str
    cache: str = "cache/duts-tr-256"
    steps: int = 2200
    batch_size: int = 12
    learning_rate: float = 2e-3
    transformer_rate: float = 1e-3
    backbone_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup_steps: int = 200
    frozen_blocks: tuple[int, ...] = (11,)
    thaw_steps: int = 400
    early_size: int = 0
    early_share: float = 0.0
    average: float = 0.999
    edge_weight: float = 3.0
    init: str = ""
    realign: bool = False
    align_steps: int = 1200
    composed: float = 0.5
    negative: float = 0.08
    crop: float = 0.5
    alone: float = 0.0
    scenes: float = 0.0
    instances: float = 0.0
    instance_data: tuple[str, ...] = ()
    teacher: str = ""
    imagenet: str = ""
    seed: int = 7
    validate_every: int = 400
    save_every: int = 200
    validation_photos: int = 100
    workers: int = 1
    device: str = "auto"
    bf16: bool = True
    width: int = 192
    layers: int = 3
    pyramid: int = 64
    finest: int = 16
    image_size: int = 320
    backbone: str = "lite0"


_TRANSFORMER = ("words", "order", "text", "text_norm", "image_norm", "joint", "film", "norm", "place")
STATE_FILE = "state.safetensors"


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
            "masks": torch.from_numpy(sample.masks),
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


def segmentation_loss(
    output: SegmenterOutput, target: Tensor, edge_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy plus soft IoU at four scales, and the error of the expected IoU.

    Pixels near a boundary weigh more, as in F3Net (Wei et al., AAAI 2020): 1 plus `edge_weight` times how far
    the truth differs from its mean over the neighbourhood.

    Args:
        output: logits for N expressions.
        target: float (N, 1, S, S) in [0, 1].
        edge_weight: 0 or more.

    Returns:
        The loss, and the IoU (N,) at threshold 0.5 that the quality head was asked to expect.
    """
    loss = target.new_zeros(())
    scales = ((output.stride2, 1.0), (output.stride4, 0.4), (output.stride8, 0.3), (output.stride16, 0.3))
    for logits, weight in scales:
        logits = logits.float()
        goal = F.interpolate(target, size=logits.shape[-2:], mode="area")
        near = (_neighbourhood(goal) - goal).abs()
        weights = 1 + edge_weight * near
        probability = logits.sigmoid()
        both = (probability * goal * weights).sum((1, 2, 3))
        either = ((probability + goal - probability * goal) * weights).sum((1, 2, 3))
        slack = 0.002 * goal[0].numel()
        entropy = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
        loss = loss + weight * (entropy * weights).sum() / weights.sum()
        loss = loss + weight * (1 - (both + slack) / (either + slack)).mean()
    with torch.no_grad():
        small = F.interpolate(target, size=output.stride2.shape[-2:], mode="area") > 0.5
        iou = binary_iou(output.stride2 > 0, small)
    return loss + 0.5 * F.binary_cross_entropy_with_logits(output.quality.float(), iou), iou


def _neighbourhood(goal: Tensor) -> Tensor:
    """The mean over the tenth of a side around each pixel, taken on 20 cells a side because it is smooth."""
    coarse = F.adaptive_avg_pool2d(goal, 20)
    coarse = F.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)
    return F.interpolate(coarse, size=goal.shape[-2:], mode="bilinear", align_corners=False)


def binary_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU (N,) of bool masks (N, 1, H, W); 1 where both are empty."""
    both = (first & second).flatten(1).sum(1).float()
    either = (first | second).flatten(1).sum(1).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def train_segmenter(config: SegmenterTraining, resume: bool = False) -> Path:
    """Train the nano segmenter.

    Args:
        config: the settings.
        resume: go on from the newest checkpoint in `config.out`, if there is one.

    Returns:
        The folder with `config.json` and `model.safetensors` (float16).
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from torch.utils.tensorboard import SummaryWriter

    from saliency_r1.device import choose_device

    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = load_splits(config.data)
    cached = Path(config.cache) / "train"
    photos = PackedPhotos.open(train, cached, config.image_size)
    held_out_cached = Path(config.cache) / "validation"
    checks = PackedPhotos.open(held_out, held_out_cached, config.image_size)
    book = NameBook.from_samples(train)
    nouns = [Nouns.of(sample.synset, book) if sample.synset else None for sample in train + held_out]
    found = checkpoints(out)[-1] if resume and checkpoints(out) else None
    model = build_model(config, [each for each in nouns[: len(train)] if each], found)
    shares = (config.composed, config.negative, config.crop, config.alone, config.scenes, config.instances)
    mix = Mix(*shares)
    instance_photos = (
        open_photos(config.instance_data, "train", config.image_size, config.teacher or None)
        if config.instances
        else []
    )
    source = ReferringPhotos(
        photos,
        nouns[: len(train)],
        photos.colours(),
        config.seed,
        mix,
        (Foregrounds.open(train, cached, config.image_size), book) if config.scenes else None,
        instance_photos,
    )
    unseen = checks, nouns[len(train) :], checks.colours()
    composed = {"composed": ReferringPhotos(*unseen, 0, Mix(composed=1.0))}
    if config.scenes:
        others = Foregrounds.open(held_out, held_out_cached, config.image_size)
        composed["scenes"] = ReferringPhotos(*unseen, 0, Mix(scenes=1.0), (others, book))
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if found is None and (config.realign or not config.init):
        classes = imagenet_classes(config.imagenet) if config.imagenet else None
        align(
            model,
            photos,
            nouns[: len(train)],
            cached,
            config.seed,
            device,
            config.align_steps,
            others=instance_photos,
            classes=classes,
        )
    model.backbone.freeze(min(config.frozen_blocks))
    optimizer = torch.optim.AdamW(parameter_groups(model, config), weight_decay=config.weight_decay)
    averaged = AveragedModel(model, multi_avg_fn=_moving_average(config.average))
    average: NanoSegmenterModel = averaged.module  # type: ignore[assignment]
    step = restore(found, model, optimizer, averaged) if found else 0
    print(
        f"training on {device}, {'bfloat16 autocast' if config.bf16 else 'float32'}, from step {step}",
        flush=True,
    )
    log = _Log(out, step)
    writer = SummaryWriter(str(out / "tensorboard"))
    loader = DataLoader(
        _Batches(source, model.config),
        batch_size=config.batch_size,
        sampler=range(step * config.batch_size, config.steps * config.batch_size),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        persistent_workers=config.workers > 0,
        collate_fn=_batched,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started, recent = time.perf_counter(), []
    with Progress(*columns) as progress:
        bar = progress.add_task("segmenter", total=config.steps, completed=step)
        for batch in loader:
            loss, iou = train_step(model, optimizer, batch, step, config, device)
            averaged.update_parameters(model)
            recent.append((loss, iou))
            step += 1
            progress.update(bar, advance=1, description=f"loss {np.mean([x for x, _ in recent[-50:]]):.3f}")
            if step % 50 == 0:
                seconds = round(log.seconds + time.perf_counter() - started, 1)
                row: dict[str, float] = {"step": step, "seconds": seconds}
                row |= {
                    "loss": float(np.mean([x for x, _ in recent])),
                    "iou": float(np.mean([x for _, x in recent])),
                }
                recent = []
                log.add("train.csv", row)
                _add_scalars(writer, "train", row)
            if step % config.validate_every == 0 or step == config.steps:
                row = {"step": step, **validate(average, checks, composed, config, device)}
                log.add("validation.csv", row)
                _add_scalars(writer, "validation", row)
                progress.console.print(" ".join(f"{key} {value:.4g}" for key, value in row.items()))
            if step % config.save_every == 0 or step == config.steps:
                save_checkpoint(out, model, optimizer, averaged, step)
    writer.close()
    export(average, out / "final")
    return out / "final"


def build_model(
    config: SegmenterTraining, nouns: list[Nouns], checkpoint: Path | None = None
) -> NanoSegmenterModel:
    """A model as the checkpoint's, or as `config.init`'s, or a new one on ImageNet's backbone."""
    if checkpoint is not None:
        return NanoSegmenterModel(SegmenterConfig.load(checkpoint))
    added = extra_words() if config.scenes or config.instances else []
    if config.instances:
        added += vocabulary_of(category_names(config.instance_data))
    if config.imagenet:
        added += vocabulary(imagenet_classes(config.imagenet).values())
    sizes = SegmenterConfig(
        tuple(dict.fromkeys(vocabulary(nouns) + added)),
        config.image_size,
        config.width,
        config.layers,
        pyramid=config.pyramid,
        finest=config.finest,
        backbone=config.backbone,
    )
    if config.init:
        return started(Path(config.init), sizes)
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
        raise SaliencyError(f"init={folder} holds no nano segmenter: {error}") from None
    model = NanoSegmenterModel(replace(sizes, words=words))
    model.semantics.load_imagenet()
    state = {name: value.float() for name, value in weights.items() if not name.startswith("semantics.")}
    state["place"] = resized_places(state["place"], sizes.image_size // 16)
    try:
        missing = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SaliencyError(f"init={folder} has other sizes: {str(error).splitlines()[-1].strip()}") from None
    if missing.unexpected_keys:
        raise SaliencyError(f"init={folder} has the unknown weights {missing.unexpected_keys[0]}, ...")
    return model.with_words(sizes.words)


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


def parameter_groups(model: NanoSegmenterModel, config: SegmenterTraining) -> list[dict[str, Any]]:
    """Free parameters in three groups, each with its peak learning rate; no decay on vectors."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        rate = config.learning_rate
        if part in ("backbone", "match_image", "match_words"):
            rate = config.backbone_rate
        elif part in _TRANSFORMER:
            rate = config.transformer_rate
        decay = (
            config.weight_decay
            if parameter.ndim > 1 and part not in ("words", "match_words", "place", "order")
            else 0.0
        )
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rate_factor(step: int, config: SegmenterTraining) -> float:
    """Linear warm-up, then cosine decay to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return float(0.5 * (1 + np.cos(np.pi * min(done, 1.0))))


def train_step(
    model: NanoSegmenterModel,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    step: int,
    config: SegmenterTraining,
    device: torch.device,
) -> tuple[float, float]:
    """One optimiser step; returns the loss and the mean IoU of the batch."""
    model.train()
    stage = min(step // max(1, config.thaw_steps), len(config.frozen_blocks) - 1)
    model.backbone.freeze(config.frozen_blocks[stage])
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate_factor(step, config)
    pixels = normalise(batch["image"].to(device))
    target = batch["masks"].to(device)[:, None].float() / 255
    if config.early_size and step < config.early_share * config.steps:
        side = (config.early_size, config.early_size)
        pixels = F.interpolate(pixels, side, mode="bilinear", antialias=True)
        target = F.interpolate(target, side, mode="bilinear", antialias=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        encoded = model.encode(pixels).repeat(batch["counts"].to(device))
        output = model.segment(encoded, batch["words"].to(device))
    loss, iou = segmentation_loss(output, target, config.edge_weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    return float(loss.detach()), float(iou.mean())


@torch.no_grad()
def validate(
    model: NanoSegmenterModel,
    photos: PackedPhotos,
    composed: Mapping[str, ReferringPhotos],
    config: SegmenterTraining,
    device: torch.device,
) -> dict[str, float]:
    """MAE and IoU for "the salient object" on plain photos; IoU and right objects on each composed set."""
    model.eval()
    word_list = model.word_list
    maes, ious = [], []
    for start in range(0, min(config.validation_photos, len(photos)), 20):
        stop = min(start + 20, config.validation_photos, len(photos))
        target = torch.from_numpy(np.array(photos.masks[start:stop])).to(device)[:, None].float() / 255
        words = torch.tensor(
            word_list.encode([GENERIC[0]] * (stop - start), model.config.length), device=device
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            pixels = normalise(torch.from_numpy(np.array(photos.images[start:stop])).to(device))
            logits = model.segment(model.encode(pixels), words).stride2
        logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
        maes += (logits.sigmoid() - target).abs().mean((1, 2, 3)).tolist()
        ious += binary_iou(logits > 0, target > 0.5).tolist()
    row = {"mae": float(np.mean(maes)), "iou": float(np.mean(ious))}
    for name, samples in composed.items():
        named, right = _told_apart(model, samples, min(config.validation_photos, len(photos)), config, device)
        row |= {f"{name}_iou": named, f"{name}_right": right}
    return row


def _told_apart(
    model: NanoSegmenterModel,
    samples: ReferringPhotos,
    count: int,
    config: SegmenterTraining,
    device: torch.device,
) -> tuple[float, float]:
    """Mean IoU of two expressions for different things, and how often the mask fits its own better."""
    named, right = [], []
    for number in range(count):
        sample = samples[number]
        masks = torch.from_numpy(sample.masks)[:, None] > 127
        if not masks.flatten(1).any(1).all() or torch.equal(masks[0], masks[1]):
            continue
        words = torch.tensor(model.word_list.encode(sample.expressions, model.config.length), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            encoded = model.encode(normalise(torch.from_numpy(np.array(sample.image))[None].to(device)))
            logits = model.segment(encoded.repeat(torch.tensor([2], device=device)), words).stride2
        size = masks.shape[-2:]
        found = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).cpu() > 0
        own, other = binary_iou(found, masks), binary_iou(found, masks.flip(0))
        named += own.tolist()
        right += (own > other).float().tolist()
    return (float(np.mean(named)), float(np.mean(right))) if named else (float("nan"), float("nan"))


def save_checkpoint(
    out: Path,
    model: NanoSegmenterModel,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel,
    step: int,
) -> None:
    """Write `checkpoint-<step>` whole or not at all, then remove older ones."""
    state = {
        f"optimizer.{number}.{key}": value.contiguous()
        for number, slots in optimizer.state_dict()["state"].items()
        for key, value in slots.items()
    }
    state |= {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    state |= {f"average.{name}": value.contiguous() for name, value in averaged.state_dict().items()}
    final, partial = out / f"checkpoint-{step}", out / f".checkpoint-{step}.{os.getpid()}"
    partial.mkdir(exist_ok=True)
    save_file(state, partial / STATE_FILE, metadata={"step": str(step)})
    (partial / CONFIG_FILE).write_text(model.config.to_json())
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    for old in checkpoints(out)[:-1]:
        shutil.rmtree(old)


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def restore(
    checkpoint: Path, model: NanoSegmenterModel, optimizer: torch.optim.Optimizer, averaged: AveragedModel
) -> int:
    """Load a checkpoint into a model of its sizes, its optimiser and its average; return its step."""
    state = load_file(checkpoint / STATE_FILE)
    model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
    averaged.load_state_dict(
        {name[8:]: value for name, value in state.items() if name.startswith("average.")}
    )
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            slots.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(checkpoint.name.split("-")[1])


def export(model: NanoSegmenterModel, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` in float16, as the package ships them."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    write_bytes_atomic(folder / WEIGHTS_FILE, save(weights))
    write_bytes_atomic(folder / CONFIG_FILE, model.config.to_json().encode())


class _Log:
    """CSV files that grow by a row; what an earlier process wrote behind step `start` is dropped."""

    def __init__(self, out: Path, start: int) -> None:
        self.out = out
        self.seconds = 0.0
        for name in ("train.csv", "validation.csv"):
            rows = self._read(name)
            (out / name).unlink(missing_ok=True)
            for row in rows:
                if int(row["step"]) <= start:
                    self.add(name, row)
                    self.seconds = max(self.seconds, float(row.get("seconds", 0)))

    def add(self, name: str, row: Mapping[str, float | str]) -> None:
        """Append a row, after the heading if it is the first."""
        path = self.out / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _read(self, name: str) -> list[dict[str, str]]:
        path = self.out / name
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))


def _add_scalars(writer: Any, part: str, row: dict[str, float]) -> None:
    for key, value in row.items():
        if key != "step":
            writer.add_scalar(f"{part}/{key}", value, int(row["step"]))
