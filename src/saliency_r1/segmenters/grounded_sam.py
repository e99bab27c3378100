"""GroundingDINO with SAM or SAM 2 as a segmenter: boxes of an expression, then the mask of each box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from saliency_r1.checkpoint import shown_name
from saliency_r1.segmenters import grounding_dino, sam_boxes
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.segmenters.candidates import one_mask
from saliency_r1.segmenters.grounding_dino import MOST_BOXES, GroundingDino
from saliency_r1.segmenters.sam_boxes import BoxSam


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as the detector and SAM keep it."""

    detector: grounding_dino.EncodedPhoto
    sam: sam_boxes.EncodedPhoto


class GroundedSamSegmenter:
    """Finds what an expression names: GroundingDINO finds its boxes, SAM or SAM 2 draws a mask in each.

    A region is the union of the masks, an instance that of the surest box. Both photo encoders run once for
    an image; GroundingDINO's later layers mix photo and text, and run for each expression.

    Args:
        detector: finds boxes.
        sam: draws masks.
        name: how results call it.
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
            device: of both.
            dtype: of both.
            version: of SAM, 1 or 2.

        Raises:
            SaliencyError: if they are not there, or cannot or must not be loaded.
        """
        boxes = GroundingDino.from_pretrained(detector, device, dtype)
        load = BoxSam.from_pretrained if version == 1 else BoxSam.from_pretrained_2
        name = f"{shown_name(detector)} + {shown_name(sam)}"
        return cls(boxes, load(sam, device, dtype), name=name)

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once."""
        return EncodedPhoto(self.detector.encode(image), self.sam.encode(image))

    @torch.inference_mode()
    def segment(
        self, encoded: EncodedPhoto, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """The mask of each expression.

        Args:
            encoded: from `encode`.
            expressions: any texts; what stands beyond the detector's longest text, 256 tokens, is not read.
            instances: the instance of the surest box alone, instead of the union of all.

        Returns:
            Probabilities float32 (N, H, W) at the image's size; scores float32 (N,) in [0, 1]: the box's
            times the IoU that SAM expects, for an empty mask how sure the detector is that there is nothing.
        """
        masks = np.zeros((len(expressions), *encoded.sam.original), np.float32)
        if not expressions:
            return Segmentation(masks, np.zeros(0, np.float32))
        most = 1 if instances else MOST_BOXES
        found = self.detector.detect(encoded.detector, expressions, most=most)
        scores = np.array([1 - boxes.best for boxes in found], np.float32)
        rows = [row for row, boxes in enumerate(found) if len(boxes.scores)]
        if rows:
            logits, ious = self.sam.masks(encoded.sam, torch.cat([found[row].boxes for row in rows]))
            counts = [len(found[row].scores) for row in rows]
            parts = zip(rows, logits.split(counts), ious.split(counts), strict=True)
            united = [one_mask(part, found[row].scores * iou) for row, part, iou in parts]
            full = self.sam.upscale(torch.stack([mask for mask, _ in united]), encoded.sam)
            masks[rows] = full.sigmoid_().cpu().numpy()
            scores[rows] = [score for _, score in united]
        return Segmentation(masks, scores)
