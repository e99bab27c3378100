"""Names and regions brought together before the segmenter learns masks.

The mean of ImageNet's head features over a photo's mask is pulled towards the nouns that may be said of it
and away from those of other photos, as in CLIP (Radford et al., ICML 2021) with several right texts for a
region. It takes a minute, and gives the segmenter a map of where a name fits; learning that from masks
alone takes hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from saliency_r1.files import open_atomic
from saliency_r1.language.expressions import NOUNS, Nouns, Region, pick_noun
from saliency_r1.nano.segmenter_model import NanoSegmenterModel, normalise
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
    steps: int = 800,
    batch_size: int = 512,
) -> float:
    """Train `match_image` and `match_words` of a segmenter.

    Args:
        model: with ImageNet's `semantics`.
        photos: the training photos.
        nouns: what each photo's object is called, or None; photos without take no part.
        cache: where the regions' features are kept, `regions.npy`.
        seed: of batches and texts.
        device: where the model is.
        steps: of AdamW.
        batch_size: regions a step, each with one text.

    Returns:
        The share of regions of the last steps whose best text of the batch was a right one.
    """
    rows = [row for row, each in enumerate(nouns) if each]
    if not rows:
        return 0.0
    features = _regions(model, photos, rows, cache, device)
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    features = (features - mean) / deviation
    known = [nouns[row] for row in rows]
    sayable = [frozenset((*each.names, *each.synonyms, *each.hypernyms)) for each in known if each]
    weight = torch.nn.Parameter(torch.randn(model.config.match, features.shape[1], device=device) / 36)
    words = model.match_words.weight
    with torch.no_grad():
        words.normal_(std=0.1)[0] = 0
    groups: list[dict[str, Any]] = [{"params": [weight], "weight_decay": 0.05}, {"params": [words]}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    rng = np.random.default_rng(seed)
    word_list, length = model.word_list, model.config.length
    right: list[float] = []
    for step in track(range(steps), "aligning names and regions"):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        batch = rng.integers(len(rows), size=min(batch_size, 4 * len(rows)))
        said = [pick_noun(Region(_EMPTY, known[index]), rng, plain=0.0) for index in batch]
        texts = [str(rng.choice(_TEMPLATES)).format(noun) for noun in said]
        fits = torch.tensor([[noun in sayable[index] for noun in said] for index in batch], device=device)
        chosen = features[torch.from_numpy(batch).to(device)]
        regions = F.normalize((chosen + _NOISE * torch.randn_like(chosen)) @ weight.T, dim=1)
        numbers = torch.tensor(word_list.encode(texts, length), device=device)
        logits = _SCALE * regions @ model.meaning(numbers).T
        floor = torch.finfo(logits.dtype).min
        good = logits.masked_fill(~fits, floor)
        by_region = logits.logsumexp(1) - good.logsumexp(1)
        by_text = logits.logsumexp(0) - good.logsumexp(0)
        loss = by_region.mean() + by_text.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float(fits.gather(1, logits.argmax(1, keepdim=True)).float().mean()))
    with torch.no_grad():
        model.match_image.weight.copy_((weight / deviation)[..., None, None])
        model.match_image.bias.copy_(-(weight / deviation) @ mean)  # type: ignore[union-attr]
        for noun in NOUNS:  # words that fit anything say nothing
            words[word_list.number(noun)] = 0
    return float(np.mean(right[-50:]))


@torch.no_grad()
def _regions(
    model: NanoSegmenterModel, photos: PackedPhotos, rows: Sequence[int], cache: Path, device: torch.device
) -> Tensor:
    """Mean head features over each photo's mask, float (len(rows), 1280), kept in the cache."""
    path = cache / "regions.npy"
    if path.is_file():
        kept = np.load(path)
        if len(kept) == len(rows):
            return torch.from_numpy(kept).to(device)
    found = []
    for start in track(range(0, len(rows), 32), f"looking at {len(rows)} named photos"):
        some = rows[start : start + 32]
        pixels = normalise(torch.from_numpy(np.stack([photos.images[row] for row in some])).to(device))
        masks = torch.from_numpy(np.stack([photos.masks[row] for row in some])).to(device)
        maps = model.semantics(model.backbone(pixels)[3])
        share = F.interpolate(masks[:, None].float() / 255, size=maps.shape[-2:], mode="area")
        found.append((maps * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=0.1))
    features = torch.cat(found)
    with open_atomic(path) as file:
        np.save(file, features.cpu().numpy())
    return features
