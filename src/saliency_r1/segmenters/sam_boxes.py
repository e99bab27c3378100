"""SAM and SAM 2 as what turns a box into a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model
from saliency_r1.device import moved
from saliency_r1.segmenters.batched import encode_by_shape, rows, rows_of, stretched
from saliency_r1.segmenters.photo_reading import Reading, read_reading

SAM_READING = Reading({"longest_edge": 1024})
SAM2_READING = Reading({"height": 1024, "width": 1024})
"""The published weights' own; their folder may say otherwise."""

BOXES_AT_ONCE = 64


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as SAM keeps it.

    Attributes:
        embedding: one from SAM (1, C, h, w), a list of three of different sizes from SAM 2.
        resized: height and width of the photo inside SAM's square.
        original: height and width of the photo.
    """

    embedding: torch.Tensor | list[torch.Tensor]
    resized: tuple[int, int]
    original: tuple[int, int]


class BoxSam:
    """Masks for boxes on one photo, from SAM (arXiv:2304.02643) or SAM 2 (arXiv:2408.00714).

    Args:
        model: transformers' `SamModel` or `Sam2Model`.
        reading: how it preprocesses a photo.
    """

    def __init__(self, model: Any, reading: Reading) -> None:
        self.model = model
        self.device = model.device
        self.reading = reading
        self.side = model.config.prompt_encoder_config.image_size

    @classmethod
    def from_pretrained(cls, source: str, device: str = "auto", dtype: str = "auto") -> BoxSam:
        """Load SAM in the layout of `facebook/sam-vit-huge`; see `checkpoint.load_model`."""
        from transformers import SamModel

        model, folder = load_model(SamModel, source, "SAM", ["sam"], device, dtype)
        return cls(model, read_reading(folder, SAM_READING))

    @classmethod
    def from_pretrained_2(cls, source: str, device: str = "auto", dtype: str = "auto") -> BoxSam:
        """Load SAM 2 in the layout of `facebook/sam2.1-hiera-large`; see `checkpoint.load_model`.

        The video model's weights hold the image model; the rest of them is left out.
        """
        from transformers import Sam2Model

        model, folder = load_model(Sam2Model, source, "SAM 2", ["sam2", "sam2_video"], device, dtype)
        return cls(model, read_reading(folder, SAM2_READING))

    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Look at images (mode RGB, any sizes) once."""
        read = [self.reading(image) for image in images]
        sizes = [(pixels.shape[-2], pixels.shape[-1]) for pixels in read]
        squares = [
            F.pad(pixels, (0, self.side - width, 0, self.side - height))
            for pixels, (height, width) in zip(read, sizes, strict=True)
        ]

        def encode(indices: list[int], pixels: torch.Tensor) -> Iterator[EncodedPhoto]:
            embeddings = self.model.get_image_embeddings(moved(pixels, self.device, self.model.dtype))
            several = isinstance(embeddings, list)
            parts = zip(*map(rows, embeddings if several else [embeddings]), strict=True)
            for index, part in zip(indices, parts, strict=True):
                original = images[index].height, images[index].width
                yield EncodedPhoto(list(part) if several else part[0], sizes[index], original)

        return encode_by_shape(squares, encode)

    def masks(
        self, encoded: Sequence[EncodedPhoto], owners: Sequence[int], boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask of each box.

        Args:
            encoded: the result of `encode_many`.
            owners: which of them each box is on.
            boxes: float32 (M, 4), left, top, right, bottom as fractions of the photo's width and height.

        Returns:
            Logits float32 (M, h, w) on SAM's square, and the IoU that SAM expects of them, float32 (M,).
        """
        sizes = boxes.new_tensor([encoded[owner].resized for owner in owners])
        boxes = (boxes * sizes[:, [1, 0, 1, 0]]).to(self.model.dtype)
        logits, ious = [], []
        for start in range(0, len(owners), BOXES_AT_ONCE):
            part = owners[start : start + BOXES_AT_ONCE]
            output = self.model(
                image_embeddings=_embeddings(encoded, part),
                input_boxes=boxes[start : start + BOXES_AT_ONCE, None],
                multimask_output=False,
            )
            logits.append(output.pred_masks[:, 0, 0].float())
            ious.append(output.iou_scores[:, 0, 0].float().clamp(0, 1))
        return torch.cat(logits), torch.cat(ious)

    def upscale(self, logits: torch.Tensor, encoded: EncodedPhoto, size: tuple[int, int]) -> torch.Tensor:
        """Bring logits (N, h, w) from SAM's square to a height and width, float32 (N, H, W)."""
        if encoded.resized != (self.side, self.side):
            logits = stretched(logits, (self.side, self.side))
            logits = logits[..., : encoded.resized[0], : encoded.resized[1]]
        return stretched(logits, size)


def _embeddings(encoded: Sequence[EncodedPhoto], owners: Sequence[int]) -> torch.Tensor | list[torch.Tensor]:
    """Return the model's inputs for that photo of each row."""
    parts: list[Any] = [encoded[owner].embedding for owner in owners]
    if isinstance(parts[0], list):
        return [rows_of(level) for level in zip(*parts, strict=True)]
    return rows_of(parts)
