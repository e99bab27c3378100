"""Fit the nano policy's reader of names on all named regions, before the policy learns to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor

from saliency_r1.data.coco_json import find_json
from saliency_r1.data.layouts import load_splits
from saliency_r1.data.mask_files import load_grey
from saliency_r1.data.true_instances import decode
from saliency_r1.images import load_image
from saliency_r1.nano.backbone import HEAD_CHANNELS
from saliency_r1.nano.instance_map import middles_of
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.scenes.instance_photos import category_nouns, select

_DROPOUT = 0.4
_PULL = 1e-3
"""The weight of the distance from the start, whose weights know more classes than the photos show."""
_LEAST_STEPS = 100
"""A new name is not learned in fewer; with more, the reader says the names of a few photos of all things."""
_ENOUGH = 100
"""Held-out regions that are needed to choose a threshold; with fewer of them it stays as it was."""
_GRID = tuple(round(0.02 * step, 2) for step in range(5, 48))


@dataclass(frozen=True)
class NamedRegions:
    """Regions of photos, with what is in each.

    Attributes:
        features: features of ImageNet's classifier, averaged under each region, float32 (N, 1280).
        seen: the same, averaged where the policy will look for the region: where it sees what is salient, and
            around the middle of the region if the photo has several.
        alone: whether a region is the only one of its photo, bool (N,).
        labels: N, each the number of a synset or the name of a category, see `NameTree.meant`.
    """

    features: Tensor
    seen: Tensor
    alone: Tensor
    labels: tuple[str, ...]

    def only(self, chosen: Tensor) -> NamedRegions:
        """Return the regions that are chosen, bool (N,)."""
        labels = (label for label, here in zip(self.labels, chosen.tolist(), strict=True) if here)
        return NamedRegions(self.features[chosen], self.seen[chosen], self.alone[chosen], tuple(labels))


@dataclass(frozen=True)
class _Photo:
    path: Path
    regions: tuple[tuple[Any, str], ...]


def named_photos(roots: Iterable[str | Path], split: str) -> list[_Photo]:
    """The photos of a split with a name.

    Args:
        roots: folders of COCO json sets, whose instances have the names of their categories; or DUTS folders
            and folders of photos and masks, whose synsets.json has the names.
        split: `train` or `validation`.

    Raises:
        SaliencyError: if one of them cannot be read.
    """
    photos = []
    for root in roots:
        if find_json(root) is None:
            samples = load_splits(root)[split == "validation"]
            photos += [_Photo(each.image, ((each.mask, each.synset.id),)) for each in samples if each.synset]
            continue
        for image, names in select(root, split):
            labels = [category_nouns(name).names[0] for name in names]
            regions = [(each.mask, label) for each, label in zip(image.instances, labels, strict=True)]
            photos.append(_Photo(image.image, tuple(regions)))
    return photos


def read_regions(model: Any, processor: Any, photos: Sequence[_Photo], file: Path | None) -> NamedRegions:
    """Compute the features of named regions, once: `file` keeps them.

    Args:
        model: a `NanoForImageTextToText`.
        processor: its processor.
        photos: see `named_photos`.
        file: a .npz; None to keep nothing.
    """
    if file is not None and file.is_file():
        with np.load(file) as kept:
            if "alone" in kept:
                tensors = [torch.from_numpy(kept[name]) for name in ("features", "seen", "alone")]
                return NamedRegions(
                    tensors[0].float(), tensors[1].float(), tensors[2], tuple(kept["labels"].tolist())
                )
    under: list[Tensor] = []
    looked: list[Tensor] = []
    alone: list[bool] = []
    labels: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        batches = [photos[start : start + 8] for start in range(0, len(photos), 8)]
        ahead = _ahead(pool, batches)
        for batch in track(ahead, f"named regions of {len(photos)} photos", total=len(batches)):
            for image, masks, names in batch:
                pixels = processor.image_processor([image], return_tensors="pt")["pixel_values"]
                found = _pooled(model, pixels, masks)
                kept_rows = found[0].sum(-1) > 0
                under += found[1][kept_rows]
                looked += found[2][kept_rows]
                alone += [len(masks) == 1] * int(kept_rows.sum())
                labels += [name for name, keep in zip(names, kept_rows.tolist(), strict=True) if keep]
    nothing = torch.zeros(0, HEAD_CHANNELS)
    stacked = [(torch.stack(rows) if rows else nothing).to(torch.float16) for rows in (under, looked)]
    single = torch.tensor(alone, dtype=torch.bool)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            file,
            features=stacked[0].numpy(),
            seen=stacked[1].numpy(),
            alone=single.numpy(),
            labels=np.array(labels),
        )
    return NamedRegions(stacked[0].float(), stacked[1].float(), single, tuple(labels))


def _ahead(pool: ThreadPoolExecutor, batches: Sequence[Sequence[_Photo]]) -> Iterator[list[Any]]:
    """Photos and masks, read one batch ahead."""
    waiting = None
    for batch in [*batches, ()]:
        coming = [pool.submit(_read, photo) for photo in batch]
        if waiting is not None:
            yield [one.result() for one in waiting]
        waiting = coming


def _read(photo: _Photo) -> tuple[Image.Image, list[np.ndarray], list[str]]:
    masks = [decode(mask) if isinstance(mask, dict) else load_grey(mask) >= 128 for mask, _ in photo.regions]
    return load_image(photo.path), masks, [label for _, label in photo.regions]


def _shares(mask: np.ndarray, side: int) -> np.ndarray:
    small = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


@torch.inference_mode()
def _pooled(model: Any, pixels: Tensor, masks: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shares of the cells of each region, and the features under it and as the policy looks."""
    adapter = model.model.adapter
    features = model.model.encode_images(pixels.to(model.device))
    side = isqrt(features.shape[1])
    shares = torch.stack([torch.from_numpy(_shares(mask, side)).flatten() for mask in masks])
    looked = adapter.salient(features).float().cpu()
    if len(masks) == 1:
        weights = NameReader.weights(looked, torch.zeros(1, features.shape[1], 0))[0]
    else:
        # Each alone among the others, as many as there are: the policy looks for six at most.
        middles = [middles_of(torch.from_numpy(mask)[None], side).flatten() for mask in masks]
        orders = torch.stack([(middle >= middle.amax()).float() for middle in middles], dim=1)[None]
        weights = NameReader.weights(looked, orders)[0, 1:]
    head = features[0, :, :HEAD_CHANNELS].float().cpu()
    under = shares / shares.sum(-1, keepdim=True).clamp(min=1e-6)
    return shares, under @ head, weights @ head


@torch.no_grad()
def start_reader(
    reader: NameReader, classes: Mapping[str, int], weights: Tensor, bias: Tensor, before: NameReader | None
) -> None:
    """Start a reader's weights from ImageNet's classifier, and from an earlier reader.

    A class that neither has starts as the mean of those that its narrowest word can be said of.

    Args:
        reader: to be changed.
        classes: the classifier's number of each synset; none to do without it.
        weights, bias: those of the classifier, (1000, 1280) and (1000,).
        before: an earlier reader with a tree of its own, or None.
    """
    known = torch.zeros(len(reader.tree.classes), dtype=torch.bool)
    for row, name in enumerate(reader.tree.classes):
        if before is not None and name in before.tree.number:
            number = before.tree.number[name]
            reader.head.weight[row], reader.head.bias[row] = (
                before.head.weight[number],
                before.head.bias[number],
            )
        elif name in classes:
            reader.head.weight[row], reader.head.bias[row] = weights[classes[name]], bias[classes[name]]
        else:
            continue
        known[row] = True
    for row, chain in enumerate(reader.tree.chains):
        if not known[row]:
            near = [number for number in reader.tree.below[chain[0]] if known[number]]
            reader.head.weight[row] = reader.head.weight[near].mean(0) if near else 0.0
            reader.head.bias[row] = reader.head.bias[near].mean() if near else 0.0


def fit_names(
    reader: NameReader, regions: NamedRegions, *, epochs: int = 20, batch_size: int = 256, seed: int = 0
) -> None:
    """Fit a reader's linear layer; a label stands for all classes that it may mean.

    Each region is shown as it is and as the policy will look at it. Rare labels count more than their number:
    as the root of it.

    Args:
        reader: its weights are where it starts from, and are held near them.
        regions: to learn from; those without a class are left out.
        epochs, batch_size, seed: settings of AdamW.
    """
    meant, used = _meant(reader.tree, regions.labels)
    features = torch.stack([regions.features[used], regions.seen[used]])
    counts = Counter(regions.labels[index] for index in used.tolist())
    odds = torch.tensor([counts[regions.labels[index]] ** -0.5 for index in used.tolist()])
    start = [each.detach().clone() for each in reader.head.parameters()]
    optimizer = torch.optim.AdamW(reader.head.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    steps = max(_LEAST_STEPS, epochs * (2 * len(used) // batch_size))
    for step in track(range(steps), "fitting the names"):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        chosen = torch.multinomial(odds, min(batch_size, len(used)), replacement=True, generator=generator)
        way = torch.randint(2, (len(chosen),), generator=generator)
        logits = reader.logits(F.dropout(features[way, chosen], _DROPOUT))
        own = logits.log_softmax(-1).masked_fill(~meant[chosen], -torch.inf)
        held = sum(
            (new - old).square().sum() for new, old in zip(reader.head.parameters(), start, strict=True)
        )
        loss = -own.logsumexp(-1).mean() + _PULL * held
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def calibrate(reader: NameReader, regions: NamedRegions, wanted: float = 0.89) -> dict[str, float]:
    """Choose temperature and threshold of a reader on regions that it was not fitted on, as it will see them.

    The temperature is that of the least loss. The threshold is the lowest at which so large a share of the
    words that are handed on is true, a word of the chain of what is there. Only regions that are alone in
    their photo count: the others are looked at around a middle that is often uncertain. For the threshold
    only those count whose label means one class, if there are enough: nobody knows whether "the gymnast" is
    true of a person. With few regions both stay.

    Args:
        reader: to be changed.
        regions: held out.
        wanted: the share of true words.

    Returns:
        `temperature`, `threshold`, `true` (the share at it) and `unnamed` (the share without a word).
    """
    regions = regions.only(regions.alone)
    meant, used = _meant(reader.tree, regions.labels)
    if len(used) >= _ENOUGH:
        reader.temperature.fill_(1.0)
        logits = reader.logits(regions.seen[used])
        losses = {
            value: float(
                -(logits / value).log_softmax(-1).masked_fill(~meant, -torch.inf).logsumexp(-1).mean()
            )
            for value in (round(0.05 * step, 2) for step in range(6, 81))
        }
        reader.temperature.fill_(min(losses, key=lambda value: losses[value]))
        known = torch.tensor([len(reader.tree.meant(label)) == 1 for label in regions.labels])
        if int(known.sum()) >= _ENOUGH:
            regions = regions.only(known)
        found = {value: hedged(reader, regions, value) for value in _GRID}
        enough = [value for value in _GRID if found[value][0] >= wanted]
        reader.threshold = enough[0] if enough else _GRID[-1]
    true, unnamed, _ = hedged(reader, regions, reader.threshold)
    return {
        "temperature": float(reader.temperature),
        "threshold": reader.threshold,
        "true": true,
        "unnamed": unnamed,
    }


@torch.no_grad()
def hedged(reader: NameReader, regions: NamedRegions, threshold: float) -> tuple[float, float, float]:
    """Compare the words that are handed on at a threshold with what is there, as the reader will see it.

    Returns:
        The share of the words that are true, the share of the regions without a word, and the mean
        specificity: 1 - log(classes below the word) / log(classes), 0 without a word.
    """
    tree, before = reader.tree, reader.threshold
    _, used = _meant(tree, regions.labels)
    reader.threshold = threshold
    chosen, _ = reader.choose(reader.logits(regions.seen[used]))
    reader.threshold = before
    true, unnamed, specific = 0, 0, 0.0
    for index, number in zip(used.tolist(), chosen.tolist(), strict=True):
        if number == reader.unnamed:
            unnamed += 1
            continue
        word, label = tree.words[number], regions.labels[index]
        true += any(word in tree.chains[each] for each in tree.meant(label))
        specific += 1 - float(np.log(len(tree.below[word])) / np.log(len(tree.classes)))
    named = max(1, len(chosen) - unnamed)
    return true / named, unnamed / max(1, len(chosen)), specific / max(1, len(chosen))


def _meant(tree: NameTree, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return what each label may mean, bool (n, classes), for the n with a meaning, and their indices."""
    kinds = {label: tree.meant(label) for label in dict.fromkeys(labels)}
    used = [index for index, label in enumerate(labels) if kinds[label]]
    meant = torch.zeros(len(used), len(tree.classes), dtype=torch.bool)
    for row, index in enumerate(used):
        meant[row, list(kinds[labels[index]])] = True
    return meant, torch.tensor(used, dtype=torch.long)
