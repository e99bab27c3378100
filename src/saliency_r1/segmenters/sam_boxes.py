"""SAM and SAM 2 as what turns a box into a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model
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
        reading: how it reads a photo.
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

    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once."""
        pixels = self.reading(image)
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, self.side - width, 0, self.side - height))
        embedding = self.model.get_image_embeddings(pixels.to(self.device, self.model.dtype))
        return EncodedPhoto(embedding, (height, width), (image.height, image.width))

    def masks(self, encoded: EncodedPhoto, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask of each box.

        Args:
            encoded: from `encode`.
            boxes: float32 (M, 4), left, top, right, bottom as fractions of the photo's width and height.

        Returns:
            Logits float32 (M, h, w) on SAM's square, and the IoU that SAM expects of them, float32 (M,).
        """
        height, width = encoded.resized
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        logits, ious = [], []
        for part in boxes.to(self.model.dtype).split(BOXES_AT_ONCE):
            output = self.model(
                image_embeddings=encoded.embedding, input_boxes=part[None], multimask_output=False
            )
            logits.append(output.pred_masks[0, :, 0].float())
            ious.append(output.iou_scores[0, :, 0].float().clamp(0, 1))
        return torch.cat(logits), torch.cat(ious)

    def upscale(self, logits: torch.Tensor, encoded: EncodedPhoto) -> torch.Tensor:
        """Bring logits (N, h, w) from SAM's square to the photo's size, float32 (N, H, W)."""
        whole = logits[:, None]
        if encoded.resized != (self.side, self.side):
            whole = F.interpolate(whole, (self.side, self.side), mode="bilinear", align_corners=False)
            whole = whole[..., : encoded.resized[0], : encoded.resized[1]]
        return F.interpolate(whole, encoded.original, mode="bilinear", align_corners=False)[:, 0]
