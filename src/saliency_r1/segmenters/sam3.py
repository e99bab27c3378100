"""SAM 3 as a segmenter: text in, instances out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model, load_tokenizer, shown_name
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.segmenters.candidates import kept, one_mask
from saliency_r1.segmenters.photo_reading import Reading, read_reading

READING = Reading({"height": 1008, "width": 1008}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The published weights' own; their folder may say otherwise."""

THRESHOLD = 0.5
"""What an instance scores at least, the confidence threshold of the original's image processor."""

EXPRESSIONS_AT_ONCE = 4
"""Bounds memory: an expression has feature maps of 288×288×256 of its own."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as SAM 3 keeps it: transformers' `Sam3VisionEncoderOutput`, and its height and width."""

    vision: Any
    size: tuple[int, int]


class Sam3Segmenter:
    """Finds what an expression names with SAM 3 (arXiv:2511.16719).

    It was trained on short noun phrases, for each of which it finds all instances: a region is their union,
    an instance the surest of them. Of relations between objects it knows little.

    Args:
        model: transformers' `Sam3Model`.
        tokenizer: CLIP's.
        reading: how it reads a photo.
        threshold: what an instance scores at least, in [0, 1].
        name: how results call it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reading: Reading = READING,
        *,
        threshold: float = THRESHOLD,
        name: str = "sam3",
    ) -> None:
        self.model = model
        self.device = model.device
        self.tokenizer = tokenizer
        self.reading = reading
        self.threshold = threshold
        self.name = name

    @classmethod
    def from_pretrained(cls, source: str, device: str = "auto", dtype: str = "auto") -> Sam3Segmenter:
        """Load weights in the layout of `facebook/sam3`; see `checkpoint.load_model`.

        The video model's weights hold the image model; the rest of them is left out.

        Raises:
            SaliencyError: if they are not there, or cannot or must not be loaded.
        """
        from transformers import CLIPTokenizer, Sam3Model

        model, folder = load_model(Sam3Model, source, "SAM 3", ["sam3", "sam3_video"], device, dtype)
        tokenizer = load_tokenizer(CLIPTokenizer, folder, ["vocab.json", "merges.txt"])
        return cls(model, tokenizer, read_reading(folder, READING), name=shown_name(source))

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once."""
        pixels = self.reading(image).to(self.device, self.model.dtype)
        return EncodedPhoto(self.model.get_vision_features(pixels), (image.height, image.width))

    @torch.inference_mode()
    def segment(
        self, encoded: EncodedPhoto, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """The mask of each expression.

        Args:
            encoded: from `encode`.
            expressions: any texts; what stands beyond the model's longest text, 32 tokens, is not read.
            instances: the surest instance of each expression, instead of the union of all.

        Returns:
            Probabilities float32 (N, H, W) at the image's size; scores float32 (N,) in [0, 1], for an empty
            mask how sure it is that there is nothing.
        """
        masks = np.zeros((len(expressions), *encoded.size), np.float32)
        scores = np.zeros(len(expressions), np.float32)
        for start in range(0, len(expressions), EXPRESSIONS_AT_ONCE):
            part = slice(start, start + EXPRESSIONS_AT_ONCE)
            logits, scores[part] = self._find(
                encoded.vision, list(expressions[part]), 1 if instances else None
            )
            full = F.interpolate(logits[:, None], encoded.size, mode="bilinear", align_corners=False)
            masks[part] = full[:, 0].sigmoid_().cpu().numpy()
        return Segmentation(masks, scores)

    def _find(
        self, vision: Any, expressions: list[str], most: int | None
    ) -> tuple[torch.Tensor, list[float]]:
        """Logits of a mask for each expression, float32 (N, h, w), and their scores."""
        tokens = self.tokenizer(
            expressions,
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        output = self.model(
            vision_embeds=_repeated(vision, len(expressions)),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        )
        there = output.presence_logits.float().sigmoid() * output.pred_logits.float().sigmoid()
        masks, scores = [], []
        for logits, sure in zip(output.pred_masks.float(), there, strict=True):
            found = kept(sure, self.threshold, most or len(sure))
            mask, score = one_mask(logits[found], sure[found])
            masks.append(mask)
            scores.append(score if len(found) else 1 - float(sure.max()))
        return torch.stack(masks), scores


def _repeated(vision: Any, count: int) -> Any:
    """The same photo for each of `count` expressions, without copies."""
    return replace(
        vision,
        fpn_hidden_states=[level.expand(count, -1, -1, -1) for level in vision.fpn_hidden_states],
        fpn_position_encoding=[level.expand(count, -1, -1, -1) for level in vision.fpn_position_encoding],
    )
