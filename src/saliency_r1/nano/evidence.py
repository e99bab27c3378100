"""Measure how clearly a salient region bears out each statement, for the nano policy before it writes.

Limits decide whether a statement may be made (`saliency_r1.cue_limits`). From means and spreads alone a small
language model learns such limits badly: it says that a dog is brown, or the left side darker, where that is
not clear. So the same quantities are measured here on the map of the salient region, and each statement gets
a number: how many margins the weakest of its quantities lies inside of what is clear. The language model only
has to put it into words. The idea is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    TOLD,
    Box,
    Level,
)

EVIDENCE = len(TOLD)
"""Numbers of one picture."""
_STATEMENTS = TOLD[: EVIDENCE - 2 * len(COLOURS)]
_QUANTITIES = (
    *("log area", "x", "y", *(f"{side} gap" for side in SIDES), "lightness", "colourfulness", "contrast"),
    *(f"{side} {what}" for side in SIDES for what in ("lightness", "colourfulness")),
)
_FINER = 4
"""Places are read from the map that much finer, with values between its cells."""
_STEEP = 12.0
"""The slope of a measurement at a limit, per unit."""
_RING = 5
"""Cells of the window that widens the region by its surroundings: 16 of 256 pixels each way."""


def _bounds() -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """The bounds of all statements, as many for each: which quantity, its factor and what is added.

    A quantity lies as many margins inside of what is clear as the factor times it plus the last number.
    """
    found: list[list[tuple[int, float, float]]] = []
    for key in _STATEMENTS:
        bounds = []
        for limit in LIMITS[key]:
            number, margin = _QUANTITIES.index(limit.quantity), limit.margin
            if limit.low > -math.inf:
                bounds.append((number, 1 / margin, -limit.low / margin - Level.CLEAR.value))
            if limit.high < math.inf:
                bounds.append((number, -1 / margin, limit.high / margin - Level.CLEAR.value))
        found.append(bounds)
    most = max(len(bounds) for bounds in found)
    flat = [bound for bounds in found for bound in bounds + bounds[:1] * (most - len(bounds))]
    numbers, factors, added = zip(*flat, strict=True)
    return numbers, factors, added


_NUMBERS, _FACTORS, _ADDED = _bounds()
_BOXES = tuple(
    tuple((name, level, box) for name in COLOURS for box in COLOUR_BOXES[name])
    for level in (Level.PLAIN, Level.CLEAR)
)


def evidence(shares: Tensor, lab: Tensor) -> Tensor:
    """Return how clearly a salient region bears out each statement.

    Args:
        shares: (B, G, G) in [0, 1], how salient each cell of a square picture is; the region is above 0.5.
        lab: (B, 3, G, G), CIELAB divided by 100.

    Returns:
        float32 (B, `EVIDENCE`) in [-1, 1], of the statements of `TOLD`. Above 0 a statement is clear. All are
        -1 without a region.
    """
    shares, lab = shares.float(), 100 * lab.float()
    inside = _inside(shares)[:, None]
    light = torch.cat([lab, lab[:, 1:].norm(dim=1, keepdim=True)], dim=1)
    known = torch.cat([_places(shares), _contrasts(inside, light), _sides(inside, light)], dim=1)
    factors, added = (known.new_tensor(each) for each in (_FACTORS, _ADDED))
    within = known[:, list(_NUMBERS)] * factors + added
    clear = within.unflatten(1, (len(_STATEMENTS), -1)).amin(-1)
    fits = [_named(lab, boxes) for boxes in _BOXES]
    colours = [_leads(*(_mean(each, where) for each in fits)) for where in (inside, 1 - inside)]
    found = torch.cat([clear, *colours], dim=1).tanh()
    return torch.where(inside.sum((2, 3)) > 0, found, -torch.ones_like(found))


def _inside(shares: Tensor) -> Tensor:
    """1 in the region and 0 outside; in part near 0.5, so that rounding errors change little."""
    return (_STEEP * (shares - 0.5) + 0.5).clamp(0, 1)


def _places(shares: Tensor) -> Tensor:
    """Area, place and gaps to the sides, (B, 7)."""
    fine = F.interpolate(shares[:, None], scale_factor=_FINER, mode="bilinear", align_corners=False)
    mask = _inside(fine[:, 0])
    cells = mask.shape[-1]
    middles = (torch.arange(cells, device=shares.device) + 0.5) / cells
    counts = torch.stack([mask.sum(1), mask.sum(2)], dim=1)
    centroid = (counts * middles).sum(2) / counts.sum(2).clamp(min=1)
    reached = torch.stack([mask.amax(1), mask.amax(2)], dim=1)[:, :, None]
    before = torch.ones(cells, cells, device=shares.device).tril()
    low, high = (1 - (reached * lines).amax(3).mean(2) for lines in (before, before.T))
    area = mask.mean((1, 2)).clamp(min=1e-4).log2()
    place = (centroid + (low + 1 - high) / 2) / 2
    return torch.cat([area[:, None], place, torch.stack([low, high], dim=2).flatten(1)], dim=1)


def _contrasts(inside: Tensor, light: Tensor) -> Tensor:
    """Lightness and chroma of the region less those of its surroundings, and the whole difference, (B, 3)."""
    ring = F.max_pool2d(inside, _RING, stride=1, padding=_RING // 2) - inside
    own, around = _mean(light, inside), _mean(light, ring)
    spreads = [
        (_mean(light[:, :1].square(), where) - mean[:, :1].square()).clamp(min=0).sqrt()
        for where, mean in ((inside, own), (ring, around))
    ]
    less = own - around
    whole = torch.cat([less[:, :3], spreads[0] - spreads[1]], dim=1).norm(dim=1, keepdim=True)
    return torch.cat([less[:, :1], less[:, 3:], whole], dim=1)


def _sides(inside: Tensor, light: Tensor) -> Tensor:
    """Lightness and chroma of the background in each third, less those of the region, (B, 8).

    Both are 0 in a third that is not mostly background, so that nothing is clear of it.
    """
    size = inside.shape[-1]
    third = size // 3
    cells = torch.arange(size, device=light.device)
    near, far = (cells < third).float(), (cells >= size - third).float()
    line = torch.ones_like(near)
    thirds = torch.stack(
        [line[:, None] * near, line[:, None] * far, near[:, None] * line, far[:, None] * line]
    )
    outside = (1 - inside) * thirds
    held = outside.sum((2, 3))
    known = [(light[:, channel, None] * outside).sum((2, 3)) / held.clamp(min=1e-3) for channel in (0, 3)]
    own = _mean(light, inside)
    less = torch.stack([known[0] - own[:, :1], known[1] - own[:, 3:]], dim=2)
    spoken = (_STEEP * (held / (third * size) - MOSTLY)).clamp(0, 1)
    return (less * spoken[..., None]).flatten(1)


def _leads(plain: Tensor, clear: Tensor) -> Tensor:
    """The lead of each colour in a part of the picture, in tenths of it, (B, colours)."""
    best = plain.topk(2, dim=1)[0]
    others = torch.where(plain == best[:, :1], best[:, 1:], best[:, :1])
    stated = LIMITS["colour", COLOURS[0]][0]
    least = stated.low + Level.CLEAR.value * stated.margin
    return 10 * torch.stack([clear - least, plain - LEADING, plain / 2 - others], -1).amin(-1)


def _named(lab: Tensor, boxes: Sequence[tuple[str, Level, Box]]) -> Tensor:
    """1 where a colour's name fits, (B, colours, G, G)."""
    angle = torch.atan2(lab[:, 2], lab[:, 1]) * (180 / math.pi)
    values = torch.stack([lab[:, 0], lab[:, 1:].norm(dim=1)], dim=1)
    margins = (LIGHTNESS_MARGIN, CHROMA_MARGIN)
    lows = [
        [
            low + level.value * margin
            for (low, _), margin in zip((box.lightness, box.chroma), margins, strict=True)
        ]
        for _, level, box in boxes
    ]
    highs = [
        [
            high - level.value * margin
            for (_, high), margin in zip((box.lightness, box.chroma), margins, strict=True)
        ]
        for _, level, box in boxes
    ]
    hues = [
        (0.0, 360.0) if box.hue is None else (box.hue[0] + by, box.hue[1] - box.hue[0] - 2 * by)
        for _, level, box in boxes
        for by in (HUE_MARGIN * level.value,)
    ]
    low, high, turns = (lab.new_tensor(each) for each in (lows, highs, hues))
    inside = (values[:, None] >= low[..., None, None]) & (values[:, None] <= high[..., None, None])
    turned = angle[:, None] - turns[:, :1, None]
    fits = inside.all(2) & (turned - 360 * (turned / 360).floor() <= turns[:, 1:, None])
    owner = lab.new_tensor([[float(name == colour) for name, _, _ in boxes] for colour in COLOURS])
    return (torch.einsum("cb,nbij->ncij", owner, fits.float()) > 0).float()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean over a part of the picture, (B, C); 0 if it is empty."""
    return (values * where).sum((2, 3)) / where.sum((2, 3)).clamp(min=1e-3)
