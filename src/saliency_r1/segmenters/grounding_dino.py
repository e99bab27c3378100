"""GroundingDINO: the boxes that an expression names."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model, load_tokenizer
from saliency_r1.segmenters.candidates import kept
from saliency_r1.segmenters.photo_reading import Reading, read_reading

READING = Reading({"shortest_edge": 800, "longest_edge": 1333})
"""The published weights' own; their folder may say otherwise."""

THRESHOLD = 0.35
"""What a box scores at least, as in the original's demo."""

MOST_BOXES = 32
"""Boxes of one expression at most."""

SHORTEST = 4
"""A photo is padded until its longer side is at most this many times its shorter one: a thinner strip has
fewer positions than the model has queries."""

EXPRESSIONS_AT_ONCE = 8


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as GroundingDINO keeps it: what its backbone made of it. Later layers mix photo and text.

    Attributes:
        mask: int64 (1, h, w), 1 where the photo is and 0 on padding.
        levels: features and mask of each level, as the backbone returns them.
        positions: the position embedding of each level.
    """

    mask: torch.Tensor
    levels: list[tuple[torch.Tensor, torch.Tensor]]
    positions: list[torch.Tensor]


@dataclass(frozen=True)
class Boxes:
    """What was found for one expression.

    Attributes:
        boxes: float32 (M, 4), left, top, right, bottom as fractions of the photo's width and height, the
            surest first.
        scores: float32 (M,) in [0, 1].
        best: the score of the surest candidate, found or not.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    best: float


class GroundingDino:
    """Finds the boxes of what an expression names (arXiv:2303.05499).

    Args:
        model: transformers' `GroundingDinoForObjectDetection`.
        tokenizer: BERT's, lower case.
        reading: how it reads a photo.
        threshold: what a box scores at least, in [0, 1].
    """

    def __init__(
        self, model: Any, tokenizer: Any, reading: Reading = READING, *, threshold: float = THRESHOLD
    ) -> None:
        self.model = model
        self.device = model.device
        self.tokenizer = tokenizer
        self.reading = reading
        self.threshold = threshold

    @classmethod
    def from_pretrained(cls, source: str, device: str = "auto", dtype: str = "auto") -> GroundingDino:
        """Load weights in the layout of `IDEA-Research/grounding-dino-base`; see `checkpoint.load_model`."""
        from transformers import BertTokenizer, GroundingDinoForObjectDetection

        model, folder = load_model(
            GroundingDinoForObjectDetection, source, "GroundingDINO", ["grounding-dino"], device, dtype
        )
        tokenizer = load_tokenizer(BertTokenizer, folder, ["vocab.txt"])
        return cls(model, tokenizer, read_reading(folder, READING))

    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once."""
        pixels = self.reading(image)
        height, width = pixels.shape[-2:]
        least = -(-max(height, width) // SHORTEST)
        pad = (0, max(0, least - width), 0, max(0, least - height))
        mask = F.pad(torch.ones(1, height, width, dtype=torch.int64), pad).to(self.device)
        pixels = F.pad(pixels, pad).to(self.device, self.model.dtype)
        levels, positions = self.model.model.backbone(pixels, mask)
        return EncodedPhoto(mask, levels, positions)

    def detect(self, encoded: EncodedPhoto, expressions: Sequence[str], *, most: int) -> list[Boxes]:
        """The boxes of each expression, at most `most` of them."""
        return [
            boxes
            for start in range(0, len(expressions), EXPRESSIONS_AT_ONCE)
            for boxes in self._detect(encoded, expressions[start : start + EXPRESSIONS_AT_ONCE], most)
        ]

    def _detect(self, encoded: EncodedPhoto, expressions: Sequence[str], most: int) -> list[Boxes]:
        tokens = self.tokenizer(
            [_caption(expression) for expression in expressions],
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.model.config.max_text_len,
            return_tensors="pt",
        ).to(self.device)
        count = len(expressions)
        model = _with_backbone(self.model, _Kept(self.model.model.backbone, encoded))
        # Of the pixels the model needs the shape alone: the backbone has seen them.
        pixels = encoded.levels[0][0].new_zeros(()).expand(count, 3, *encoded.mask.shape[-2:])
        output = model(pixel_values=pixels, pixel_mask=encoded.mask.expand(count, -1, -1), **tokens)
        found = []
        for scores, centred in zip(output.logits.float().sigmoid(), output.pred_boxes.float(), strict=True):
            sure = scores.amax(-1)
            rows = kept(sure, self.threshold, most)
            centre, size = centred[rows].split(2, dim=-1)
            corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1).clamp(0, 1)
            found.append(Boxes(corners, sure[rows], float(sure.max())))
        return found


class _Kept(torch.nn.Module):
    """Stands where the backbone is, and returns what that made of a photo for each expression."""

    def __init__(self, backbone: Any, encoded: EncodedPhoto) -> None:
        super().__init__()
        self.position_embedding = backbone.position_embedding
        self.encoded = encoded

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor) -> tuple[list[Any], list[torch.Tensor]]:
        count = len(pixels)
        levels = [
            (features.expand(count, -1, -1, -1), seen.expand(count, -1, -1))
            for features, seen in self.encoded.levels
        ]
        return levels, [position.expand(count, -1, -1, -1) for position in self.encoded.positions]


def _with_backbone(model: Any, backbone: torch.nn.Module) -> Any:
    """The same weights with another backbone. The model itself stays as it is, for other threads."""
    inner, outer = copy.copy(model.model), copy.copy(model)
    inner._modules = model.model._modules | {"backbone": backbone}
    outer._modules = model._modules | {"model": inner}
    return outer


def _caption(expression: str) -> str:
    """An expression as the model was trained to read one: lower case, closed by the only stop in it.

    Another stop would begin another phrase.
    """
    words = expression.lower().replace(".", " ").replace("?", " ").split()
    return f"{' '.join(words)}."
