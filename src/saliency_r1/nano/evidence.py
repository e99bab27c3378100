"""What the nano policy is told of each statement before it writes: how clearly a region bears it out.

Limits decide whether a statement may be made (`saliency_r1.cue_limits`). From means and spreads alone a small
language model learns such limits badly: it says that a dog is brown, or the left side darker, where that is
not clear. So the same quantities are measured here on the map of the salient region, and each statement gets
a number: how many margins the weakest of its quantities lies inside of what is clear. The language model only
has to put it into words. The idea is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_r1.cue_limits import (
    CHROMA_MARGIN,
    COLOUR_BOXES,
    COLOURS,
    HUE_MARGIN,
    LEADING,
    LIGHTNESS_MARGIN,
    LIMITS,
    MOSTLY,
    SIDES,
    Box,
    Level,
    Limit,
)

STATEMENTS = tuple(
    (kind, value)
    for kind, value in LIMITS
    if kind != "colour" and value not in ("two areas", "several areas", "sharper")
)
"""The statements that are told beside colours; the map is too coarse for the others."""
EVIDENCE = len(STATEMENTS) + 2 * len(COLOURS)
"""Numbers of one picture."""
_FINER = 4
"""Places are read from the map that much finer, with values between its cells."""
_RING = 5
"""Cells of the window that widens the region by its surroundings: 16 of 256 pixels each way."""


def evidence(shares: Tensor, lab: Tensor) -> Tensor:
    """How clearly a salient region bears out each statement.

    Args:
        shares: (B, G, G) in [0, 1], how salient each cell of a square picture is; the region is above 0.5.
        lab: (B, 3, G, G), CIELAB divided by 100.

    Returns:
        float32 (B, `EVIDENCE`) in [-1, 1]: first `STATEMENTS`, then the colours of the region, then those of
        the background. Above 0 a statement is clear. All are -1 without a region.
    """
    shares, lab = shares.float(), 100 * lab.float()
    inside = (shares > 0.5).float()[:, None]
    known = _places(shares) | _contrasts(inside, lab) | _sides(inside, lab)
    clear = [torch.stack([_within(known, limit) for limit in LIMITS[key]], -1).amin(-1) for key in STATEMENTS]
    colours = [_leads(lab, where) for where in (inside, 1 - inside)]
    found = torch.cat([torch.stack(clear, dim=1), *colours], dim=1)
    return torch.where(inside.sum((1, 2, 3))[:, None] > 0, found.tanh(), -torch.ones_like(found))


def _within(known: Mapping[str, Tensor], limit: Limit) -> Tensor:
    """By how many margins a quantity is clear of a limit, (B,)."""
    quantity, clear = known[limit.quantity], Level.CLEAR.value
    gaps = []
    if limit.low > -math.inf:
        gaps.append((quantity - limit.low) / limit.margin - clear)
    if limit.high < math.inf:
        gaps.append((limit.high - quantity) / limit.margin - clear)
    return torch.stack(gaps, -1).amin(-1)


def _places(shares: Tensor) -> dict[str, Tensor]:
    """Area, place and gaps to the sides, each (B,)."""
    fine = F.interpolate(shares[:, None], scale_factor=_FINER, mode="bilinear", align_corners=False)
    mask = (fine[:, 0] > 0.5).float()
    cells = mask.shape[-1]
    edges = torch.arange(cells, device=shares.device) / cells
    known = {"log area": mask.mean((1, 2)).clamp(min=1e-4).log2()}
    for axis, line, (low_side, high_side) in (("x", 1, ("left", "right")), ("y", 2, ("top", "bottom"))):
        counts = mask.sum(line)
        held = counts > 0
        low = torch.where(held, edges, 1.0).amin(1)
        high = torch.where(held, edges + 1 / cells, 0.0).amax(1)
        centroid = (counts * (edges + 0.5 / cells)).sum(1) / counts.sum(1).clamp(min=1)
        known |= {axis: (centroid + (low + high) / 2) / 2}
        known |= {f"{low_side} gap": low, f"{high_side} gap": 1 - high}
    return known


def _contrasts(inside: Tensor, lab: Tensor) -> dict[str, Tensor]:
    """The region less its surroundings, each (B,); without surroundings there is no contrast."""
    wide = F.max_pool2d(inside, _RING, stride=1, padding=_RING // 2)
    ring = wide - inside
    own, around = (_mean(lab, where) for where in (inside, ring))
    chroma = lab[:, 1:].norm(dim=1, keepdim=True)
    spreads = [
        (_mean(lab[:, :1].square(), where) - _mean(lab[:, :1], where).square()).clamp(min=0).sqrt()
        for where in (inside, ring)
    ]
    apart = torch.cat([own - around, spreads[0] - spreads[1]], dim=1)
    return {
        "lightness": (own - around)[:, 0],
        "colourfulness": (_mean(chroma, inside) - _mean(chroma, ring))[:, 0],
        "contrast": apart.norm(dim=1),
    }


def _sides(inside: Tensor, lab: Tensor) -> dict[str, Tensor]:
    """Lightness and chroma of the background in each third, less those of the region, each (B,).

    Both are 0 in a third that is not mostly background, so that nothing is clear of it.
    """
    size = inside.shape[-1]
    third = size // 3
    cells = torch.arange(size, device=lab.device)
    near, far = (cells < third).float(), (cells >= size - third).float()
    light = torch.cat([lab[:, :1], lab[:, 1:].norm(dim=1, keepdim=True)], dim=1)
    own = _mean(light, inside)
    known: dict[str, Tensor] = {}
    for side, where in zip(SIDES, (near, far, near[:, None], far[:, None]), strict=True):
        outside = (1 - inside) * where
        spoken = outside.sum((1, 2, 3)) >= MOSTLY * third * size
        less = torch.where(spoken[:, None], _mean(light, outside) - own, 0.0)
        known |= {f"{side} lightness": less[:, 0], f"{side} colourfulness": less[:, 1]}
    return known


def _leads(lab: Tensor, where: Tensor) -> Tensor:
    """By how much each colour leads in a part of the picture, in tenths of it, (B, colours)."""
    plain, clear = (_mean(_named(lab, level), where) for level in (Level.PLAIN, Level.CLEAR))
    best = plain.topk(2, dim=1)[0]
    others = torch.where(plain == best[:, :1], best[:, 1:], best[:, :1])
    stated = LIMITS["colour", COLOURS[0]][0]
    least = stated.low + Level.CLEAR.value * stated.margin
    return 10 * torch.stack([clear - least, plain - LEADING, plain / 2 - others], -1).amin(-1)


def _named(lab: Tensor, level: Level) -> Tensor:
    """1 where a colour's name fits, (B, colours, G, G)."""
    lightness, chroma = lab[:, 0], lab[:, 1:].norm(dim=1)
    hue = torch.atan2(lab[:, 2], lab[:, 1]) * (180 / math.pi)
    maps = [
        torch.stack([_fits(lightness, chroma, hue, box, level.value) for box in COLOUR_BOXES[name]]).amax(0)
        for name in COLOURS
    ]
    return torch.stack(maps, dim=1)


def _fits(lightness: Tensor, chroma: Tensor, hue: Tensor, box: Box, margins: float) -> Tensor:
    fits = torch.ones_like(lightness, dtype=torch.bool)
    for value, (low, high), margin in (
        (lightness, box.lightness, LIGHTNESS_MARGIN),
        (chroma, box.chroma, CHROMA_MARGIN),
    ):
        fits = fits & (value >= low + margins * margin) & (value <= high - margins * margin)
    if box.hue is not None:
        by = HUE_MARGIN * margins
        turned = hue - box.hue[0] - by
        fits = fits & (turned - 360 * (turned / 360).floor() <= box.hue[1] - box.hue[0] - 2 * by)
    return fits.float()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean over a part of the picture, (B, C); 0 if it is empty."""
    return (values * where).sum((2, 3)) / where.sum((2, 3)).clamp(min=1e-3)
