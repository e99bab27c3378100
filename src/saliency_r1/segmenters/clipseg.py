"""CLIPSeg as a segmenter: 150 million parameters, for wherever the larger ones do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import load_model, load_tokenizer, shown_name
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.segmenters.photo_reading import Reading, read_reading

READING = Reading({"height": 352, "width": 352})
"""The published weights' own; their folder may say otherwise."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as CLIPSeg keeps it.

    Attributes:
        activations: of the layers that its decoder reads, (1, 1 + P, D) each.
        size: height and width of the photo.
    """

    activations: tuple[torch.Tensor, ...]
    size: tuple[int, int]


class ClipSegSegmenter:
    """Finds what an expression names with CLIPSeg (arXiv:2112.10003).

    It squeezes the photo to 352×352 and gives soft masks without sharp borders. It knows no instances.

    Args:
        model: transformers' `CLIPSegForImageSegmentation`.
        tokenizer: CLIP's.
        reading: how it reads a photo.
        name: how results call it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, reading: Reading = READING, *, name: str = "clipseg"
    ) -> None:
        self.model = model
        self.device = model.device
        self.tokenizer = tokenizer
        self.reading = reading
        self.name = name

    @classmethod
    def from_pretrained(cls, source: str, device: str = "auto", dtype: str = "auto") -> ClipSegSegmenter:
        """Load weights in the layout of `CIDAS/clipseg-rd64-refined`; see `checkpoint.load_model`.

        Raises:
            SaliencyError: if they are not there, or cannot or must not be loaded.
        """
        from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

        model, folder = load_model(CLIPSegForImageSegmentation, source, "CLIPSeg", ["clipseg"], device, dtype)
        tokenizer = load_tokenizer(CLIPTokenizer, folder, ["vocab.json", "merges.txt"])
        return cls(model, tokenizer, read_reading(folder, READING), name=shown_name(source))

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once."""
        pixels = self.reading(image).to(self.device, self.model.dtype)
        states = self.model.clip.vision_model(
            pixels, interpolate_pos_encoding=True, output_hidden_states=True
        ).hidden_states
        # The first state is what goes into the first layer.
        layers = tuple(states[index + 1] for index in self.model.config.extract_layers)
        return EncodedPhoto(layers, (image.height, image.width))

    @torch.inference_mode()
    def segment(
        self, encoded: EncodedPhoto, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """The mask of each expression. CLIPSeg tells no score: it is the mean probability inside the mask.

        Args:
            encoded: from `encode`.
            expressions: any texts; what stands beyond CLIP's longest text, 77 tokens, is not read.
            instances: ignored, the model knows no instances.

        Returns:
            Probabilities float32 (N, H, W) at the image's size; scores float32 (N,) in [0, 1], for an empty
            mask how sure it is that there is nothing.
        """
        height, width = encoded.size
        if not expressions:
            return Segmentation(np.zeros((0, height, width), np.float32), np.zeros(0, np.float32))
        tokens = self.tokenizer(
            list(expressions),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        texts = self.model.clip.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        activations = [layer.expand(len(texts), -1, -1) for layer in encoded.activations]
        logits = self.model.decoder(activations, texts).logits.float()
        found = logits.sigmoid()
        inside = found >= 0.5
        means = (found * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
        scores = torch.where(inside.flatten(1).any(1), means, 1 - found.flatten(1).amax(1))
        masks = F.interpolate(logits[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
        return Segmentation(masks.sigmoid_().cpu().numpy(), scores.cpu().numpy())
