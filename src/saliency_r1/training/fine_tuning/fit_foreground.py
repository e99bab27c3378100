"""Fitting what the nano policy takes for the salient region on true masks, before it learns to write."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from saliency_r1.data.mask_files import load_grey
from saliency_r1.nano.foreground import SUB_CELLS
from saliency_r1.nano.vision import Adapter
from saliency_r1.training.features import FeatureCache, Key
from saliency_r1.training.fine_tuning.fitting import Fitting


def fit_foreground(
    adapter: Adapter, cache: FeatureCache, masks: Mapping[Key, Path], fitting: Fitting
) -> float:
    """Fit `adapter.foreground`'s reading of the salient region.

    Args:
        adapter: an adapter with a `Foreground`.
        cache: holds the features of the photos.
        masks: the true mask of each photo, of the photo as it is; the key says whether it is to be mirrored.
        fitting: the steps.

    Returns:
        Mean IoU of the sub-cells above one half over the last tenth of the steps.

    Raises:
        ValueError: if the adapter has no `Foreground`, or there is no mask.
    """
    foreground = adapter.foreground
    if foreground is None or not masks:
        raise ValueError("nothing to fit: the adapter needs a foreground, and the photos masks")
    keys, device = sorted(masks), foreground.share.weight.device
    side = SUB_CELLS * round(adapter.place.num_embeddings**0.5)
    with ThreadPoolExecutor(4) as pool:
        truths = torch.from_numpy(np.stack(list(pool.map(lambda key: _read(key, masks[key], side), keys))))
    parameters = [*foreground.hidden.parameters(), *foreground.share.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    overlaps: list[float] = []
    for step, chosen in fitting.batches(len(keys), "fitting the foreground"):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / fitting.steps)
        features = cache.read([keys[index] for index in chosen]).to(device).float()
        truth = truths[torch.from_numpy(chosen)].to(device).float() / 255
        logits = foreground.logits(adapter.telling(features))
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found, true = logits > 0, truth > 0.5
        either = (found | true).sum((1, 2)).clamp(min=1)
        overlaps.append(float(((found & true).sum((1, 2)) / either).mean()))
    return float(np.mean(overlaps[-max(1, fitting.steps // 10) :]))


def _read(key: Key, path: Path, side: int) -> np.ndarray:
    """The mask at (side, side), uint8, mirrored if the key says so."""
    small = Image.fromarray(load_grey(path)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(ImageOps.mirror(small) if key[1] else small)
