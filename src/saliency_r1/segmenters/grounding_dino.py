"""GroundingDINO: the boxes that an expression names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model, load_tokenizer
from saliency_r1.device import moved
from saliency_r1.segmenters.batched import encode_by_shape, rows, rows_of, same_shapes, tokenized
from saliency_r1.segmenters.candidates import kept
from saliency_r1.segmenters.photo_reading import PhotoAndTextModel, Reading, read_reading

READING = Reading({"shortest_edge": 800, "longest_edge": 1333})
"""The published weights' own; their folder may say otherwise."""

THRESHOLD = 0.35
"""Minimum score of a box, as in the original's demo."""

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
    """The boxes that were found for one expression.

    Attributes:
        boxes: float32 (M, 4), left, top, right, bottom as fractions of the photo's width and height, the
            surest first.
        scores: float32 (M,) in [0, 1].
        best: the score of the surest candidate, found or not.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    best: float


class GroundingDino(PhotoAndTextModel):
    """Finds the boxes of what an expression names (arXiv:2303.05499).

    Args:
        model: transformers' `GroundingDinoForObjectDetection`.
        tokenizer: BERT's, lower case.
        reading: how it preprocesses a photo.
        threshold: minimum score of a box, in [0, 1].
    """

    def __init__(
        self, model: Any, tokenizer: Any, reading: Reading = READING, *, threshold: float = THRESHOLD
    ) -> None:
        super().__init__(model, tokenizer, reading)
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

    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Look at images (mode RGB, any sizes) once; those that are read at one size go together."""
        return encode_by_shape([self.reading(image) for image in images], self._encode)

    def _encode(self, indices: list[int], pixels: torch.Tensor) -> Iterator[EncodedPhoto]:
        height, width = pixels.shape[-2:]
        least = -(-max(height, width) // SHORTEST)
        pad = (0, max(0, least - width), 0, max(0, least - height))
        mask = F.pad(torch.ones(len(pixels), height, width, dtype=torch.int64, device=self.device), pad)
        padded = moved(F.pad(pixels, pad), self.device, self.model.dtype)
        levels, positions = self.model.model.backbone(padded, mask)
        own = zip(
            rows(mask),
            zip(*(zip(rows(features), rows(seen), strict=True) for features, seen in levels), strict=True),
            zip(*map(rows, positions), strict=True),
            strict=True,
        )
        for seen, features, places in own:
            yield EncodedPhoto(seen, list(features), list(places))

    def detect(
        self,
        encoded: Sequence[EncodedPhoto],
        owners: Sequence[int],
        expressions: Sequence[str],
        most: Sequence[int],
    ) -> list[Boxes]:
        """The boxes of each expression.

        Args:
            encoded: the result of `encode_many`.
            owners: in which of them each expression is looked for.
            expressions: any texts.
            most: maximum number of boxes of each.
        """
        found: dict[int, Boxes] = {}
        for part in same_shapes([encoded[owner].mask for owner in owners], EXPRESSIONS_AT_ONCE):
            photos = _rows_of([encoded[owners[row]] for row in part])
            boxes = self._detect(photos, [expressions[row] for row in part], [most[row] for row in part])
            found |= zip(part, boxes, strict=True)
        return [found[row] for row in range(len(expressions))]

    def _detect(self, photos: EncodedPhoto, expressions: Sequence[str], most: Sequence[int]) -> list[Boxes]:
        captions = [_caption(expression) for expression in expressions]
        tokens = tokenized(self.tokenizer, captions, self.model.config.max_text_len).to(self.device)
        model = _with_backbone(self.model, _Kept(self.model.model.backbone, photos))
        # Of the pixels the model needs the shape alone: the backbone has seen them.
        pixels = photos.levels[0][0].new_zeros(()).expand(len(expressions), 3, *photos.mask.shape[-2:])
        output = model(pixel_values=pixels, pixel_mask=photos.mask, **tokens)
        found = []
        for scores, centred, limit in zip(
            output.logits.float().sigmoid(), output.pred_boxes.float(), most, strict=True
        ):
            sure = scores.amax(-1)
            best = kept(sure, self.threshold, limit)
            centre, size = centred[best].split(2, dim=-1)
            corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1).clamp(0, 1)
            found.append(Boxes(corners, sure[best], float(sure.max())))
        return found


def _rows_of(photos: Sequence[EncodedPhoto]) -> EncodedPhoto:
    """The photos of the rows as one, (R, …) each; they are of one size."""
    levels = zip(*(photo.levels for photo in photos), strict=True)
    return EncodedPhoto(
        rows_of([photo.mask for photo in photos]),
        [
            (rows_of([features for features, _ in level]), rows_of([seen for _, seen in level]))
            for level in levels
        ],
        [rows_of(places) for places in zip(*(photo.positions for photo in photos), strict=True)],
    )


class _Kept(torch.nn.Module):
    """Stands where the backbone is, and returns what that made of the photos."""

    def __init__(self, backbone: Any, encoded: EncodedPhoto) -> None:
        super().__init__()
        self.position_embedding = backbone.position_embedding
        self.encoded = encoded

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor) -> tuple[list[Any], list[torch.Tensor]]:
        return self.encoded.levels, self.encoded.positions


def _with_backbone(model: Any, backbone: torch.nn.Module) -> Any:
    """Return the same weights with another backbone. The model itself is not changed, for other threads."""
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
