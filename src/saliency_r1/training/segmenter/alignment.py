"""Names and regions brought together before the segmenter learns masks.

The mean of ImageNet's head features over a photo's mask is pulled towards the nouns that may be said of it
and away from those of other photos, as in CLIP (Radford et al., ICML 2021) with several right texts for a
region. It takes a minute, and gives the segmenter a map of where a name fits; learning that from masks
alone takes hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from saliency_r1.device import computes_bfloat16
from saliency_r1.files import open_atomic
from saliency_r1.language.expressions import NOUNS, Nouns, Region, pick_noun
from saliency_r1.nano.backbone import classifier_weights
from saliency_r1.nano.segmenter_model import NanoSegmenterModel, normalise
from saliency_r1.scenes.instance_photos import InstancePhoto
from saliency_r1.scenes.packed import PackedPhotos

_TEMPLATES = (
    "the {}",
    "{}",
    "the small {}",
    "the large {}",
    "the {} on the left",
    "the right {}",
    "the top {}",
)
_SCALE = 20.0
_NOISE = 0.3
_EMPTY = np.zeros((1, 1), bool)


def align(
    model: NanoSegmenterModel,
    photos: PackedPhotos,
    nouns: Sequence[Nouns | None],
    cache: Path,
    seed: int,
    device: torch.device,
    steps: int = 1200,
    batch_size: int = 512,
    others: Sequence[InstancePhoto] = (),
    classes: Mapping[int, Nouns] | None = None,
) -> float:
    """Train `match_image` and `match_words` of a segmenter.

    Args:
        model: a model with ImageNet's `semantics`, on a backbone that is ImageNet's up to their map.
        photos: the training photos.
        nouns: what each photo's object is called, or None; photos without take no part.
        cache: where the photos' features are kept, `regions.npy`.
        seed: random seed of batches and texts.
        device: where the model is.
        steps: steps of AdamW.
        batch_size: regions a step, each with one text.
        others: photos of named instances, each instance of which is one more region.
        classes: what ImageNet's classes are called, by index. A quarter of the regions of a step are then
            made up, see `class_regions`, so that the words of classes which no photo shows are learned too.

    Returns:
        The share of real regions of the last steps whose best text of the batch was a right one.
    """
    rows = [row for row, each in enumerate(nouns) if each]
    if not rows:
        return 0.0
    known = [each for each in nouns if each]
    more = [_instance_regions(model, photo, device) for photo in track(others, "looking at instances")]
    features = torch.cat([_regions(model, photos, rows, cache, device), *more])
    known += [each for photo in others for each in photo.nouns]
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    features = (features - mean) / deviation
    real = len(known)
    if classes:
        made = class_regions(features, known, classes, deviation, model.config.backbone)
        features = torch.cat([features, made])
        known += list(classes.values())
    spread = _residuals(features[:real], known[:real])
    sayable = [frozenset((*each.names, *each.synonyms, *each.hypernyms)) for each in known]
    weight = torch.nn.Parameter(torch.randn(model.config.match, features.shape[1], device=device) / 36)
    words = model.match_words.weight
    with torch.no_grad():
        words.normal_(std=0.1)[0] = 0
    groups: list[dict[str, Any]] = [{"params": [weight], "weight_decay": 0.05}, {"params": [words]}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    rng = np.random.default_rng(seed)
    right: list[float] = []
    for step in track(range(steps), "aligning names and regions"):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        size = min(batch_size, 4 * real)
        batch = rng.integers(real, size=size)
        if classes:
            batch[: size // 4] = rng.integers(real, len(known), size=size // 4)
        said, texts = _texts([known[index] for index in batch], rng)
        fits = torch.tensor([[noun in sayable[index] for noun in said] for index in batch], device=device)
        chosen = features[torch.from_numpy(batch).to(device)]
        if classes:  # a class has one mean; real regions of it would scatter around it
            drawn = torch.from_numpy(rng.integers(len(spread), size=size // 4))
            chosen[: size // 4] += spread[drawn.to(device)]
        regions = F.normalize((chosen + _NOISE * torch.randn_like(chosen)) @ weight.T, dim=1)
        numbers = torch.tensor(model.word_list.encode(texts, model.config.length), device=device)
        logits = _SCALE * regions @ model.meaning(numbers).T
        loss = _contrast(logits, fits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = fits.gather(1, logits.argmax(1, keepdim=True))[:, 0]
        right.append(float(first[torch.from_numpy(batch < real)].float().mean()))
    _keep(model, weight / deviation, mean)
    return float(np.mean(right[-50:]))


def _texts(nouns: Sequence[Nouns], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """A noun for each region, and a phrase around it."""
    said = [pick_noun(Region(_EMPTY, each), rng, plain=0.0) for each in nouns]
    return said, [str(rng.choice(_TEMPLATES)).format(noun) for noun in said]


def _contrast(logits: Tensor, fits: Tensor) -> Tensor:
    """Return the loss of finding texts that fit regions in the batch, and regions that fit texts."""
    good = logits.masked_fill(~fits, torch.finfo(logits.dtype).min)
    by_region = logits.logsumexp(1) - good.logsumexp(1)
    by_text = logits.logsumexp(0) - good.logsumexp(0)
    return by_region.mean() + by_text.mean()


@torch.no_grad()
def _keep(model: NanoSegmenterModel, weight: Tensor, mean: Tensor) -> None:
    """Put what was learned of regions into the model, and say nothing for words that fit anything."""
    model.match_image.weight.copy_(weight[..., None, None])
    model.match_image.bias.copy_(-weight @ mean)  # type: ignore[union-attr]
    for noun in NOUNS:
        model.match_words.weight[model.word_list.number(noun)] = 0


def class_regions(
    features: Tensor,
    nouns: Sequence[Nouns],
    classes: Mapping[int, Nouns],
    deviation: Tensor,
    variant: str,
) -> Tensor:
    """Estimate where the regions of each of ImageNet's classes lie, from the classifier's weights.

    If all classes have normal features of one covariance S, the classifier that separates them best has the
    weights w = S^-1 m for a class of mean m (linear discriminant analysis), so that S w tells m up to a
    factor. The factor is the one that fits the real regions' own class means best.

    Args:
        features: float (N, 1280) of real regions, standardised.
        nouns: N, what each region is.
        classes: what the classes are called, by index.
        deviation: float (1280,), by which the features were divided.
        variant: variant of the backbone, a name of `saliency_r1.nano.backbone.VARIANTS`.

    Returns:
        float (len(classes), 1280), standardised as `features` are.
    """
    weights = classifier_weights(variant).to(features.device) * deviation
    weights = weights - weights.mean(0)
    residuals = _residuals(features, nouns)
    covariance = residuals.T @ residuals / len(residuals)
    means = weights[list(classes)] @ covariance
    by_name: dict[str, list[int]] = {}
    for row, each in enumerate(nouns):
        by_name.setdefault(each.names[0], []).append(row)
    known, true = [], []
    for number, each in enumerate(classes.values()):
        rows = by_name.get(each.names[-1], ())
        if len(rows) >= 5:
            known.append(number)
            true.append(features[list(rows)].mean(0))
    if not known:
        return means * (features.norm(dim=1).mean() / means.norm(dim=1).mean())
    factor = (means[known] * torch.stack(true)).sum() / means[known].square().sum()
    return means * factor


def _residuals(features: Tensor, nouns: Sequence[Nouns]) -> Tensor:
    """Return how far each region is from the mean of those of its name, float (N, 1280)."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(each.names[0] for each in nouns))}
    owner = torch.tensor([numbers[each.names[0]] for each in nouns], device=features.device)
    sums = features.new_zeros(len(numbers), features.shape[1]).index_add_(0, owner, features)
    counts = torch.bincount(owner, minlength=len(numbers)).clamp(min=1)
    return features - (sums / counts[:, None])[owner]


@torch.no_grad()
def _instance_regions(model: NanoSegmenterModel, photo: InstancePhoto, device: torch.device) -> Tensor:
    """Mean head features over each instance's mask, float (len(photo.masks), 1280)."""
    pixels = normalise(torch.from_numpy(np.array(photo.image))[None].to(device))
    masks = torch.from_numpy(photo.masks).to(device)[:, None].float()
    with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
        maps = model.semantics_of(pixels).float()
    share = F.interpolate(masks, size=maps.shape[-2:], mode="area")
    return (maps * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=0.1)


@torch.no_grad()
def _regions(
    model: NanoSegmenterModel, photos: PackedPhotos, rows: Sequence[int], cache: Path, device: torch.device
) -> Tensor:
    """Mean head features over each photo's mask, float (len(rows), 1280), kept in the cache."""
    path = cache / f"regions-{model.config.backbone}.npy"
    if path.is_file():
        kept = np.load(path)
        if len(kept) == len(rows):
            return torch.from_numpy(kept).to(device)
    found = []
    for start in track(range(0, len(rows), 32), f"looking at {len(rows)} named photos"):
        some = rows[start : start + 32]
        pixels = normalise(torch.from_numpy(np.stack([photos.images[row] for row in some])).to(device))
        masks = torch.from_numpy(np.stack([photos.masks[row] for row in some])).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
            maps = model.semantics_of(pixels).float()
        share = F.interpolate(masks[:, None].float() / 255, size=maps.shape[-2:], mode="area")
        found.append((maps * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=0.1))
    features = torch.cat(found)
    with open_atomic(path) as file:
        np.save(file, features.cpu().numpy())
    return features
