"""The nano policy's map of single objects before it writes: where their middles are, and how many.

Counting and pointing take exact places, which a small language model learns slowly from words alone. Here
a short transformer over the cells is fitted on scenes whose instances are known: a map with a peak at the
middle of each instance (Zhou et al. 2019, "Objects as Points"), and the number of them. The language model
reads both beside what else it sees of a cell, and which in order the instance of a cell is: as it is to be
read, and from each side.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.nano.configuration import MOST_INSTANCES as MOST
from saliency_r1.nano.layers import AdapterLayer
from saliency_r1.reading_order import BAND

SUB_CELLS = 2
"""Places of the map along the side of a cell."""
ORDERS = 5
"""In which an instance has a turn: as read, and from each side."""
_WIDTH, _LAYERS, _HEADS = 96, 2, 4


class InstanceMap(nn.Module):
    """Reads the middles and the number of salient instances.

    Args:
        sizes: numbers of the parts of a cell's features that tell what is salient.
        cells: cells of an image.
        width: width of the image tokens.
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
        self.orders = nn.Linear(ORDERS * MOST, width, bias=False)

    def read(self, features: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Logits of both.

        Args:
            features: (B, cells, sum(sizes)).
            dropout: share of the features that is left out, while fitting.

        Returns:
            How far a middle lies in each sub-cell, (B, cells, 4), and the number of instances, (B, 7).
        """
        split = zip(features.split(self.sizes, dim=-1), self.sizes, strict=True)
        parts = [F.layer_norm(part, (size,)) for part, size in split]
        x = self.join(F.dropout(torch.cat(parts, dim=-1), dropout)) + self.place.weight
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.middles(x), self.count(x.mean(1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add to each token, and which instances are in which cell.

        Args:
            features: (B, cells, sum(sizes)).

        Returns:
            (B, cells, width), and (B, cells, 6): in the cell of an instance's middle its turn as it is read.
        """
        with torch.no_grad():  # fitted on masks; the language model is not to bend it
            middles, count = self.read(features)
            share = count.float().softmax(-1)[:, None].expand(-1, middles.shape[1], -1)
            near = middles.float().sigmoid()
            seen = torch.cat([near, share], dim=-1)
            orders = orders_of(near, count.argmax(1))
        found = self.out(F.gelu(self.up(seen.to(self.up.weight.dtype))))
        return found + self.orders(orders.to(found.dtype)), orders[..., :MOST]


def orders_of(near: Tensor, count: Tensor) -> Tensor:
    """Which cells hold instances, and which in each order they are.

    Args:
        near: (B, cells, 4) in [0, 1], how far a middle lies in each sub-cell of square images.
        count: (B,), how many instances to find.

    Returns:
        float32 (B, cells, 30): in the cells of the highest peaks, as many as `count` says, one of six is 1 in
        each order: as read, from the left, from the right, from the top, from the bottom.
    """
    side = isqrt(near.shape[1])
    middles = F.pixel_shuffle(near.transpose(1, 2).unflatten(2, (side, side)), SUB_CELLS)
    peaks = middles * (middles == F.max_pool2d(middles, 3, stride=1, padding=1))
    grid = SUB_CELLS * side
    places = peaks.flatten(1).topk(MOST)[1]
    index = torch.arange(MOST, device=near.device)
    wanted = index < count[:, None]
    rows = places // grid
    columns = places - rows * grid
    across, down = (_turns(line * MOST + index, wanted) for line in (columns, rows))
    bands = _bands((rows.double() + 0.5) / grid, wanted)
    read = _turns((bands * grid + columns) * MOST + index, wanted)
    last = count[:, None] - 1
    turns = torch.stack([read, across, last - across, down, last - down], dim=2)
    held = (turns[..., None] == index) & wanted[..., None, None]
    cells = rows // SUB_CELLS * side + columns // SUB_CELLS
    owned = cells[:, None] == torch.arange(side * side, device=near.device)[:, None]
    return owned.float() @ held.flatten(2).float()


def _turns(keys: Tensor, wanted: Tensor) -> Tensor:
    """The rank of each key, from the smallest on, among those that are wanted, (B, `MOST`)."""
    return ((keys[:, None] < keys[:, :, None]) & wanted[:, None]).sum(2)


def _bands(heights: Tensor, wanted: Tensor) -> Tensor:
    """The band in which each place is read, int64 (B, `MOST`), as `reading_order` makes them.

    Args:
        heights: float64 (B, `MOST`), from 0 at the top to 1; in float32 a place at a band's end would err.
        wanted: bool (B, `MOST`), which places there are.
    """
    bands = torch.zeros_like(heights, dtype=torch.int64)
    left = wanted
    for number in range(MOST):
        top = heights.masked_fill(~left, 2.0).amin(1, keepdim=True)
        inside = left & (heights <= top + BAND)
        bands = bands.masked_fill(inside, number)
        left = left & ~inside
    return bands


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
