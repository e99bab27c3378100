"""GroundingDINO with SAM or SAM 2 as a segmenter: boxes of an expression, then the mask of each box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from saliency_r1.checkpoint import shown_name
from saliency_r1.segmenters import grounding_dino, sam_boxes
from saliency_r1.segmenters.base import Flags
from saliency_r1.segmenters.batched import BatchedSegmenter, Rows
from saliency_r1.segmenters.candidates import NOTHING, one_mask
from saliency_r1.segmenters.grounding_dino import MOST_BOXES, GroundingDino
from saliency_r1.segmenters.sam_boxes import BoxSam


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as the detector and SAM keep it."""

    detector: grounding_dino.EncodedPhoto
    sam: sam_boxes.EncodedPhoto


class GroundedSamSegmenter(BatchedSegmenter):
    """Finds what an expression names: GroundingDINO finds its boxes, SAM or SAM 2 draws a mask in each.

    A region is the union of the masks, an instance that of the surest box. Both photo encoders run once for
    an image; GroundingDINO's later layers mix photo and text, and run for each expression.

    Args:
        detector: finds boxes.
        sam: draws masks.
        name: its name in results.
    """

    def __init__(self, detector: GroundingDino, sam: BoxSam, *, name: str = "grounded-sam") -> None:
        self.detector = detector
        self.sam = sam
        self.device = sam.device
        self.name = name

    @classmethod
    def from_pretrained(
        cls, detector: str, sam: str, device: str = "auto", dtype: str = "auto", *, version: int = 1
    ) -> GroundedSamSegmenter:
        """Load a detector and SAM; see `checkpoint.load_model`.

        Args:
            detector: in the layout of `IDEA-Research/grounding-dino-base`.
            sam: in the layout of `facebook/sam-vit-huge`, or for version 2 `facebook/sam2.1-hiera-large`.
            device: device of both models.
            dtype: dtype of both models.
            version: version of SAM, 1 or 2.

        Raises:
            SaliencyError: if they are not there, or cannot or must not be loaded.
        """
        boxes = GroundingDino.from_pretrained(detector, device, dtype)
        load = BoxSam.from_pretrained if version == 1 else BoxSam.from_pretrained_2
        name = f"{shown_name(detector)} + {shown_name(sam)}"
        return cls(boxes, load(sam, device, dtype), name=name)

    def image_encoders(self) -> list[torch.nn.Module]:
        """See `BatchedSegmenter.image_encoders`."""
        return [self.sam.model.vision_encoder]

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Look at images (mode RGB, any sizes) once."""
        both = zip(self.detector.encode_many(images), self.sam.encode_many(images), strict=True)
        return [EncodedPhoto(*each) for each in both]

    def find_rows(self, photos: Sequence[EncodedPhoto], texts: Sequence[str], instances: Flags) -> Rows:
        """Find the union of the masks of each text's boxes, or the mask of the best box.

        The detector reads at most 256 tokens of a text. Scores are the box's times the IoU that SAM expects,
        for an empty mask how sure the detector is that there is nothing. See `BatchedSegmenter`.
        """
        most = [1 if single else MOST_BOXES for single in instances]
        found = self.detector.detect([photo.detector for photo in photos], range(len(texts)), texts, most)
        counts = [len(boxes.scores) for boxes in found]
        scores = torch.tensor([1 - boxes.best for boxes in found], device=self.device)
        logits = torch.full((len(texts), 1, 1), NOTHING, device=self.device)
        if sum(counts):
            boxes = torch.cat([each.boxes for each in found])
            whose = [row for row, count in enumerate(counts) for _ in range(count)]
            drawn, ious = self.sam.masks([photo.sam for photo in photos], whose, boxes)
            sure = torch.cat([each.scores for each in found]) * ious
            logits = logits.expand(-1, *drawn.shape[1:]).contiguous()
            parts = zip(drawn.split(counts), sure.split(counts), strict=True)
            for row, (part, each) in enumerate(parts):
                if len(each):
                    logits[row], scores[row] = one_mask(part, each)
        return logits, scores

    def size_of(self, encoded: EncodedPhoto) -> tuple[int, int]:
        """See `BatchedSegmenter.size_of`."""
        return encoded.sam.original

    def resized(self, logits: torch.Tensor, encoded: EncodedPhoto, size: tuple[int, int]) -> torch.Tensor:
        """See `BatchedSegmenter.resized`."""
        return self.sam.upscale(logits, encoded.sam, size).sigmoid_()
