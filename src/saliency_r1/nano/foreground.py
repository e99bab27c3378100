"""The nano policy's measurements of the salient region before it writes.

Whether an object is small, on the left, or darker than what is around it is a sum over many cells; a small
language model learns such sums slowly. Here they are taken once: the features of each cell say how far each
of its 4x4 sub-cells is salient, and with these shares as weights place, size, edges and CIELAB of the region
and of its surroundings are averaged. The idea is that of attention pooling; the choice of sums is ours, and
follows the cues of `data/cues.py`.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.nano.evidence import EVIDENCE, evidence

SUB_CELLS = 4
"""Sub-cells along the side of a cell, as those of the colours in `vision.py`."""
MEASURES = 44 + EVIDENCE
_WEIGHT = 4.0
"""Evidence enters so much larger, because steps of AdamW have one size: so it is learned sooner."""
_RING = 5
"""Sub-cells of the window that widens the region by its surroundings: 16 of 256 pixels each way."""


class Foreground(nn.Module):
    """Reads where the salient region is, and measures it.

    Args:
        sizes: numbers of the parts of a cell's features that tell what is salient.
        width: width of the image tokens.
    """

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.hidden = nn.Linear(sum(sizes), 128)
        self.share = nn.Linear(128, SUB_CELLS**2)
        self.up = nn.Linear(MEASURES, width)
        self.out = nn.Linear(width, width)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of sub-cells, (B, 4 side, 4 side), from features (B, cells, sum(sizes))."""
        split = zip(features.split(self.sizes, dim=-1), self.sizes, strict=True)
        parts = [F.layer_norm(part, (size,)) for part, size in split]
        shares = self.share(F.gelu(self.hidden(torch.cat(parts, dim=-1))))
        return _to_map(shares)[:, 0]

    def forward(self, features: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
        """One vector an image, to be added to its tokens, and how salient each cell is.

        Args:
            features: (B, cells, sum(sizes)).
            colours: (B, cells, 48), CIELAB of the sub-cells as `vision.py` puts it out.

        Returns:
            (B, width), and (B, cells) in [0, 1].
        """
        with torch.no_grad():  # fitted on masks; the language model is not to bend it
            shares = self.logits(features).sigmoid()
            measured = measures(shares, _to_map(colours))
        added = self.out(F.gelu(self.up(measured.to(self.up.weight.dtype))))
        return added, F.avg_pool2d(shares[:, None].float(), SUB_CELLS).flatten(1)

    @torch.no_grad()
    def evidence(self, features: Tensor, colours: Tensor) -> Tensor:
        """Return how clearly each statement is borne out, (B, `EVIDENCE`); arguments as of `forward`."""
        return evidence(self.logits(features).sigmoid(), _to_map(colours))


def measures(shares: Tensor, lab: Tensor) -> Tensor:
    """Numbers of a salient region and of what is around it.

    Args:
        shares: (B, G, G) in [0, 1], how salient each sub-cell is.
        lab: (B, 3, G, G), CIELAB divided by 100.

    Returns:
        float32 (B, `MEASURES`): area and its logarithm, place, extent, how far the region reaches each edge;
        mean and spread of CIELAB and chroma inside, in a ring around it and outside, and the differences;
        lightness and chroma outside in the thirds left, right, top and bottom, less those inside; and four
        times how clearly each statement is borne out, see `evidence`.
    """
    shares, lab = shares.float(), lab.float()
    inside = shares[:, None]
    wide = F.max_pool2d(inside, _RING, stride=1, padding=_RING // 2)
    area = shares.mean((1, 2))
    line = (torch.arange(shares.shape[-1], device=shares.device) + 0.5) / shares.shape[-1]
    total = shares.sum((1, 2)) + 1e-3
    columns, rows = shares.sum(1) / total[:, None], shares.sum(2) / total[:, None]
    x, y = (columns * line).sum(1), (rows * line).sum(1)
    extent = [
        ((part * (line - middle[:, None]) ** 2).sum(1) + 1e-6).sqrt()
        for part, middle in ((columns, x), (rows, y))
    ]
    edges = [side.amax(1) for side in (shares[:, :, 0], shares[:, :, -1], shares[:, 0], shares[:, -1])]
    seen = torch.cat([lab, lab[:, 1:].square().sum(1, keepdim=True).sqrt()], dim=1)
    (own, own_spread), (ring, _), (rest, rest_spread) = (
        _moments(seen, weight) for weight in (inside, (wide - inside).clamp(min=0), 1 - inside)
    )
    geometry = torch.stack([area, (area + 1e-3).log(), x, y, *extent, *edges], dim=1)
    difference = 3 * (own - ring)
    distance = difference[:, :3].norm(dim=1, keepdim=True)
    third = shares.shape[-1] // 3
    lines = torch.arange(shares.shape[-1], device=shares.device)
    near, far = (lines < third).float(), (lines >= shares.shape[-1] - third).float()
    sides = [
        3 * (_moments(seen[:, [0, 3]], (1 - inside) * where)[0] - own[:, [0, 3]])
        for where in (near, far, near[:, None], far[:, None])
    ]
    parts = [
        geometry,
        own,
        own_spread,
        ring,
        rest,
        rest_spread,
        difference,
        difference.abs()[:, :1],
        distance,
        *sides,
        _WEIGHT * evidence(shares, lab),
    ]
    return torch.cat(parts, dim=1)


def _moments(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation over the map, (B, C) each."""
    total = weight.sum((2, 3)) + 1e-3
    mean = (values * weight).sum((2, 3)) / total
    square = (values.square() * weight).sum((2, 3)) / total
    return mean, (square - mean.square()).clamp(min=0).add(1e-6).sqrt()


def _to_map(cells: Tensor) -> Tensor:
    """(B, cells, C 16) of square images to (B, C, 4 side, 4 side)."""
    side = isqrt(cells.shape[1])
    return F.pixel_shuffle(cells.transpose(1, 2).unflatten(2, (side, side)), SUB_CELLS)
