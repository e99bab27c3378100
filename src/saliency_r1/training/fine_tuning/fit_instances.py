"""Fitting what the nano policy takes for the middles of instances on scenes, before it learns to write."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_r1.data.instance_png import load_instances
from saliency_r1.data.true_instances import InstanceImage, decode
from saliency_r1.nano.instance_map import MOST, SUB_CELLS, InstanceMap, middles_of
from saliency_r1.nano.vision import Adapter
from saliency_r1.training.features import FeatureCache, Key
from saliency_r1.training.fine_tuning.fitting import Fitting

_MIDDLES_WEIGHT = 30.0
"""A middle is in few of the places, so that the mean over them is small."""

_LEARNED_LATER = ("up", "out", "orders")

_DROPOUT = 0.3
"""Without it the map is learned by heart, and held-out pictures are counted worse."""


@dataclass(frozen=True)
class InstanceTruth:
    """Targets of pictures: `middles_of` by cells, float32 (N, cells, 4), and instance counts, long (N,)."""

    keys: list[Key]
    middles: Tensor
    counts: Tensor

    @classmethod
    def read(cls, pictures: Mapping[Key, Path | InstanceImage], cells: int) -> InstanceTruth:
        """Make targets from the instances of each picture; the keys are those of unmirrored pictures.

        Args:
            pictures: the instance map of each, as `instance_png.load_instances` reads it, or its instances.
            cells: cells of a picture.

        Raises:
            SaliencyError: if a map cannot be read.
        """
        side = round(cells**0.5)
        keys = sorted(pictures)

        def one(key: Key) -> tuple[Tensor, int]:
            masks = torch.from_numpy(_masks(pictures[key]))
            middles = middles_of(masks, SUB_CELLS * side)[None]
            return F.pixel_unshuffle(middles, SUB_CELLS).flatten(1).T, min(len(masks), MOST)

        if not keys:
            return cls([], torch.zeros(0, cells, SUB_CELLS**2), torch.zeros(0, dtype=torch.long))
        with ThreadPoolExecutor(4) as pool:
            middles, counts = zip(*pool.map(one, keys), strict=True)
        return cls(keys, torch.stack(middles), torch.tensor(counts))


def _masks(picture: Path | InstanceImage) -> np.ndarray:
    if isinstance(picture, Path):
        return load_instances(picture)
    masks = [decode(each.mask) for each in picture.instances]
    return np.stack(masks) if masks else np.zeros((0, picture.height, picture.width), bool)


def fit_instances(adapter: Adapter, cache: FeatureCache, truth: InstanceTruth, fitting: Fitting) -> None:
    """Fit `adapter.instances`' reading of middles and number.

    Args:
        adapter: an adapter with an `InstanceMap`.
        cache: holds the features of the pictures.
        truth: the truth of at least one picture.
        fitting: the steps.

    Raises:
        ValueError: if the adapter has no `InstanceMap`, or there is no picture.
    """
    reader = _reader(adapter)
    if not truth.keys:
        raise ValueError("nothing to fit: no picture has an instance map")
    device = reader.count.weight.device
    parameters = [
        each for name, each in reader.named_parameters() if name.split(".")[0] not in _LEARNED_LATER
    ]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    for step, chosen in fitting.batches(len(truth.keys), "fitting the instance map"):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100) * (1 - step / fitting.steps)
        middles, count = reader.read(_features(adapter, cache, truth, chosen, device), _DROPOUT)
        picked = torch.from_numpy(chosen)
        loss = _MIDDLES_WEIGHT * F.binary_cross_entropy_with_logits(middles, truth.middles[picked].to(device))
        loss = loss + F.cross_entropy(count, truth.counts[picked].to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


@torch.inference_mode()
def right_counts(adapter: Adapter, cache: FeatureCache, truth: InstanceTruth, batch_size: int = 64) -> float:
    """The share of pictures whose instances `adapter.instances` counts right.

    Raises:
        ValueError: if the adapter has no `InstanceMap`.
    """
    reader = _reader(adapter)
    device = reader.count.weight.device
    right = 0
    for start in range(0, len(truth.keys), batch_size):
        chosen = np.arange(start, min(start + batch_size, len(truth.keys)))
        _, count = reader.read(_features(adapter, cache, truth, chosen, device))
        right += int((count.argmax(1).cpu() == truth.counts[torch.from_numpy(chosen)]).sum())
    return right / len(truth.keys)


def _reader(adapter: Adapter) -> InstanceMap:
    if adapter.instances is None:
        raise ValueError("nothing to fit: the adapter has no instance map")
    return adapter.instances


def _features(
    adapter: Adapter, cache: FeatureCache, truth: InstanceTruth, chosen: np.ndarray, device: torch.device
) -> Tensor:
    return adapter.telling(cache.read([truth.keys[index] for index in chosen]).to(device).float())
