"""The validation of the nano segmenter on held-out photos while it is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from saliency_r1.language.expressions import GENERIC
from saliency_r1.nano.segmenter_model import NanoSegmenterModel, normalise
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import ReferringPhotos
from saliency_r1.training.segmenter.loss import binary_iou
from saliency_r1.training.segmenter.recipe import SegmenterRecipe


@torch.no_grad()
def validate(
    model: NanoSegmenterModel,
    photos: PackedPhotos,
    composed: Mapping[str, ReferringPhotos],
    recipe: SegmenterRecipe,
    device: torch.device,
) -> dict[str, float]:
    """MAE and IoU for "the salient object" on plain photos; IoU and right objects on each composed set."""
    model.eval()
    word_list = model.word_list
    maes, ious = [], []
    for start in range(0, min(recipe.validation_photos, len(photos)), 20):
        stop = min(start + 20, recipe.validation_photos, len(photos))
        target = torch.from_numpy(np.array(photos.masks[start:stop])).to(device)[:, None].float() / 255
        words = torch.tensor(
            word_list.encode([GENERIC[0]] * (stop - start), model.config.length), device=device
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            pixels = normalise(torch.from_numpy(np.array(photos.images[start:stop])).to(device))
            logits = model.segment(model.encode(pixels), words).stride2
        logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
        maes += (logits.sigmoid() - target).abs().mean((1, 2, 3)).tolist()
        ious += binary_iou(logits > 0, target > 0.5).tolist()
    row = {"mae": float(np.mean(maes)), "iou": float(np.mean(ious))}
    for name, samples in composed.items():
        named, right = _told_apart(model, samples, min(recipe.validation_photos, len(photos)), recipe, device)
        row |= {f"{name}_iou": named, f"{name}_right": right}
    return row


def _told_apart(
    model: NanoSegmenterModel,
    samples: ReferringPhotos,
    count: int,
    recipe: SegmenterRecipe,
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
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            encoded = model.encode(normalise(torch.from_numpy(np.array(sample.image))[None].to(device)))
            logits = model.segment(encoded.repeat(torch.tensor([2], device=device)), words).stride2
        size = masks.shape[-2:]
        found = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).cpu() > 0
        own, other = binary_iou(found, masks), binary_iou(found, masks.flip(0))
        named += own.tolist()
        right += (own > other).float().tolist()
    return (float(np.mean(named)), float(np.mean(right))) if named else (float("nan"), float("nan"))
