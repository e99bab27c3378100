"""What the nano policy sees of single objects before it writes: where their middles are, and how many.

Counting and pointing take exact places, which a small language model learns slowly from words alone. Here
a short transformer over the cells is fitted on scenes whose instances are known: a map with a peak at the
middle of each instance (Zhou et al. 2019, "Objects as Points"), and the number of them. The language model
reads both beside what else it sees of a cell.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.nano.layers import AdapterLayer

SUB_CELLS = 2
"""Places of the map along the side of a cell."""
MOST = 6
"""Instances that are counted; the last class is this many."""
_WIDTH, _LAYERS, _HEADS = 96, 2, 4


class InstanceMap(nn.Module):
    """Reads the middles and the number of salient instances.

    Args:
        sizes: numbers of the parts of a cell's features that tell what is salient.
        cells: of an image.
        width: of the image tokens.
    """

    def __init__(self, sizes: tuple[int, ...], cells: int, width: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.join = nn.Linear(sum(sizes), _WIDTH)
        self.place = nn.Embedding(cells, _WIDTH)
        self.layers = nn.ModuleList(AdapterLayer(_WIDTH, _HEADS, 0.0) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.middles = nn.Linear(_WIDTH, SUB_CELLS**2)
        self.count = nn.Linear(_WIDTH, MOST + 1)
        self.up = nn.Linear(SUB_CELLS**2 + MOST + 1, width)
        self.out = nn.Linear(width, width)

    def read(self, features: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Logits of both.

        Args:
            features: (B, cells, sum(sizes)).
            dropout: share of the features that is left out, while fitting.

        Returns:
            How far a middle lies in each sub-cell, (B, cells, 4), and the number of instances, (B, 7).
        """
        parts = [F.layer_norm(part, part.shape[-1:]) for part in features.split(self.sizes, dim=-1)]
        x = self.join(F.dropout(torch.cat(parts, dim=-1), dropout)) + self.place.weight
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.middles(x), self.count(x.mean(1))

    def forward(self, features: Tensor) -> Tensor:
        """What to add to each token, (B, cells, width), of features (B, cells, sum(sizes))."""
        with torch.no_grad():  # fitted on masks; the language model is not to bend it
            middles, count = self.read(features)
            share = count.float().softmax(-1)[:, None].expand(-1, middles.shape[1], -1)
            seen = torch.cat([middles.float().sigmoid(), share], dim=-1)
        return self.out(F.gelu(self.up(seen.to(self.up.weight.dtype))))


def middles_of(masks: Tensor, side: int) -> Tensor:
    """The map that `InstanceMap` is fitted on: 1 at the middle of each instance.

    Around it the map falls as a Gaussian of 0.8 places; where two instances meet the larger value stands.

    Args:
        masks: bool (N, H, W), none empty; N may be 0.
        side: places along a side.

    Returns:
        float32 (side, side) in [0, 1].
    """
    found = torch.zeros(side, side)
    line = torch.arange(side)
    for mask in masks:
        rows, columns = (mask.sum(axis).float() for axis in (1, 0))
        y, x = ((part * torch.arange(len(part))).sum() / part.sum() for part in (rows, columns))
        row, column = int((y + 0.5) / mask.shape[0] * side), int((x + 0.5) / mask.shape[1] * side)
        falls = [(-((line - middle) ** 2) / (2 * 0.8**2)).exp() for middle in (row, column)]
        found = torch.maximum(found, falls[0][:, None] * falls[1])
    return found
