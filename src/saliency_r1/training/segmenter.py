"""Training of the nano segmenter: photos, expressions and masks in, `model.safetensors` out."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saliency_r1.data.layouts import load_splits
from saliency_r1.files import write_bytes_atomic
from saliency_r1.language.expressions import GENERIC, Nouns, vocabulary
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.segmenter_model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    NanoSegmenterModel,
    SegmenterConfig,
    SegmenterOutput,
    normalise,
)
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
        batch_size: photos a step; each has two expressions.
        learning_rate: peak, of the pyramid and the heads.
        transformer_rate: peak, of the word embedding and the transformer.
        backbone_rate: peak, of the backbone's free blocks and of the meanings of words and cells.
        weight_decay: of AdamW.
        warmup_steps: of linear warm-up; cosine decay to zero follows.
        frozen_blocks: backbone blocks without gradient, the stem among them.
        init: a folder with weights to start from instead of ImageNet's, or empty. Its vocabulary grows by the
            words that the mix adds.
        composed, negative, crop, scenes, instances: the mix of samples, see `Mix`.
        instance_data: folders of COCO json sets for the share of `instances`.
        seed: of weights and samples.
        validate_every, save_every: steps between validations and checkpoints.
        validation_photos: how many held-out photos a validation looks at.
        workers: processes that prepare samples.
        device: "auto", "cpu" or "cuda".
        bf16: autocast to bfloat16.
        width, layers, pyramid: sizes of the model, see `SegmenterConfig`.
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
    frozen_blocks: int = 11
    init: str = ""
    composed: float = 0.5
    negative: float = 0.08
    crop: float = 0.5
    scenes: float = 0.0
    instances: float = 0.0
    instance_data: tuple[str, ...] = ()
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
    image_size: int = 256


_TRANSFORMER = ("words", "order", "text", "text_norm", "image_norm", "joint", "film", "norm", "place")
STATE_FILE = "state.safetensors"


class _Batches(Dataset[dict[str, Tensor]]):
    """Samples as tensors, for a DataLoader."""

    def __init__(self, photos: ReferringPhotos, model: SegmenterConfig) -> None:
        from saliency_r1.nano.words import WordList

        self.photos, self.length = photos, model.length
        self.word_list = WordList(model.words)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        sample = self.photos[number]
        return {
            "image": torch.from_numpy(np.array(sample.image)),
            "words": torch.tensor(self.word_list.encode(sample.expressions, self.length)),
            "masks": torch.from_numpy(sample.masks),
        }


def segmentation_loss(output: SegmenterOutput, target: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy plus soft IoU at three scales, and the error of the expected IoU.

    Args:
        output: logits for N expressions.
        target: float (N, 1, S, S) in [0, 1].

    Returns:
        The loss, and the IoU (N,) at threshold 0.5 that the quality head was asked to expect.
    """
    loss = target.new_zeros(())
    for logits, weight in ((output.stride4, 1.0), (output.stride8, 0.5), (output.stride16, 0.5)):
        logits = logits.float()
        if weight == 1.0:
            logits = F.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
            goal = target
        else:
            goal = F.interpolate(target, size=logits.shape[-2:], mode="area")
        probability = logits.sigmoid()
        both = (probability * goal).sum((1, 2, 3))
        either = (probability + goal - probability * goal).sum((1, 2, 3))
        slack = 0.002 * goal[0].numel()
        loss = loss + weight * F.binary_cross_entropy_with_logits(logits, goal)
        loss = loss + weight * (1 - (both + slack) / (either + slack)).mean()
    with torch.no_grad():
        small = F.interpolate(target, size=output.stride4.shape[-2:], mode="area") > 0.5
        iou = binary_iou(output.stride4 > 0, small)
    return loss + 0.5 * F.binary_cross_entropy_with_logits(output.quality.float(), iou), iou


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
    mix = Mix(config.composed, config.negative, config.crop, config.scenes, config.instances)
    source = ReferringPhotos(
        photos,
        nouns[: len(train)],
        photos.colours(),
        config.seed,
        mix,
        (Foregrounds.open(train, cached, config.image_size), book) if config.scenes else None,
        open_photos(config.instance_data, "train", config.image_size) if config.instances else (),
    )
    unseen = checks, nouns[len(train) :], checks.colours()
    composed = {"composed": ReferringPhotos(*unseen, 0, Mix(composed=1.0))}
    if config.scenes:
        others = Foregrounds.open(held_out, held_out_cached, config.image_size)
        composed["scenes"] = ReferringPhotos(*unseen, 0, Mix(scenes=1.0), (others, book))
    model.backbone.freeze(config.frozen_blocks)
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if found is None and not config.init:
        align(model, photos, nouns[: len(train)], cached, config.seed, device)
    optimizer = torch.optim.AdamW(parameter_groups(model, config), weight_decay=config.weight_decay)
    step = restore(found, model, optimizer) if found else 0
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
            recent.append((loss, iou))
            step += 1
            progress.update(bar, advance=1, description=f"loss {np.mean([x for x, _ in recent[-50:]]):.3f}")
            if step % 50 == 0:
                row = {"step": step, "seconds": round(log.seconds + time.perf_counter() - started, 1)}
                row |= {
                    "loss": float(np.mean([x for x, _ in recent])),
                    "iou": float(np.mean([x for _, x in recent])),
                }
                recent = []
                log.add("train.csv", row)
                _add_scalars(writer, "train", row)
            if step % config.validate_every == 0 or step == config.steps:
                row = {"step": step} | validate(model, checks, composed, config, device)
                log.add("validation.csv", row)
                _add_scalars(writer, "validation", row)
                progress.console.print(" ".join(f"{key} {value:.4g}" for key, value in row.items()))
            if step % config.save_every == 0 or step == config.steps:
                save_checkpoint(out, model, optimizer, step)
    writer.close()
    export(model, out / "final")
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
    if config.init:
        return NanoSegmenterModel.from_pretrained(Path(config.init)).with_words(added)
    words = dict.fromkeys(vocabulary(nouns) + added)
    model = NanoSegmenterModel(
        SegmenterConfig(tuple(words), config.image_size, config.width, config.layers, pyramid=config.pyramid)
    )
    model.backbone.load_imagenet()
    model.semantics.load_imagenet()
    return model


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
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate_factor(step, config)
    pixels = normalise(batch["image"].to(device))
    count, each = batch["words"].shape[:2]
    target = batch["masks"].to(device).flatten(0, 1)[:, None].float() / 255
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        encoded = model.encode(pixels).repeat(torch.full((count,), each, device=device))
        output = model.segment(encoded, batch["words"].to(device).flatten(0, 1))
    loss, iou = segmentation_loss(output, target)
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
            logits = model.segment(model.encode(pixels), words).stride4
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
            logits = model.segment(encoded.repeat(torch.tensor([2], device=device)), words).stride4
        size = masks.shape[-2:]
        found = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).cpu() > 0
        own, other = binary_iou(found, masks), binary_iou(found, masks.flip(0))
        named += own.tolist()
        right += (own > other).float().tolist()
    return (float(np.mean(named)), float(np.mean(right))) if named else (float("nan"), float("nan"))


def save_checkpoint(
    out: Path, model: NanoSegmenterModel, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write `checkpoint-<step>` whole or not at all, then remove older ones."""
    state = {
        f"optimizer.{number}.{key}": value
        for number, slots in optimizer.state_dict()["state"].items()
        for key, value in slots.items()
    }
    state |= {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
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


def restore(checkpoint: Path, model: NanoSegmenterModel, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint into a model of its sizes and its optimiser; returns its step."""
    state = load_file(checkpoint / STATE_FILE)
    model.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
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
