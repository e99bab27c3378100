"""CLIPSeg as a segmenter: 150 million parameters, for machines on which larger ones do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from saliency_r1.checkpoint import load_model, load_tokenizer, shown_name
from saliency_r1.device import moved
from saliency_r1.segmenters.base import Flags
from saliency_r1.segmenters.batched import BatchedSegmenter, Rows, encode_by_shape, rows, rows_of, tokenized
from saliency_r1.segmenters.photo_reading import PhotoAndTextModel, Reading, read_reading

READING = Reading({"height": 352, "width": 352})
"""The settings of the published weights; a folder may have others."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image in CLIPSeg's encoding.

    Attributes:
        activations: activations of the layers that its decoder reads, (1, 1 + P, D) each.
        size: height and width of the photo.
    """

    activations: tuple[torch.Tensor, ...]
    size: tuple[int, int]


class ClipSegSegmenter(PhotoAndTextModel, BatchedSegmenter):
    """Find what an expression names with CLIPSeg (arXiv:2112.10003).

    It resizes the photo to 352×352 and gives soft masks without sharp borders. It has no instances.

    Args:
        model: transformers' `CLIPSegForImageSegmentation`.
        tokenizer: CLIP's tokenizer.
        reading: how it preprocesses a photo.
        name: its name in results.
    """

    def __init__(
        self, model: Any, tokenizer: Any, reading: Reading = READING, *, name: str = "clipseg"
    ) -> None:
        super().__init__(model, tokenizer, reading)
        self.name = name

    @classmethod
    def from_pretrained(cls, source: str, device: str = "auto", dtype: str = "auto") -> ClipSegSegmenter:
        """Load weights in the layout of `CIDAS/clipseg-rd64-refined`; see `checkpoint.load_model`.

        Raises:
            SaliencyError: if the weights are missing, or cannot or must not be loaded.
        """
        from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

        model, folder = load_model(CLIPSegForImageSegmentation, source, "CLIPSeg", ["clipseg"], device, dtype)
        tokenizer = load_tokenizer(CLIPTokenizer, folder, ["vocab.json", "merges.txt"])
        return cls(model, tokenizer, read_reading(folder, READING), name=shown_name(source))

    def image_encoders(self) -> list[torch.nn.Module]:
        """See `BatchedSegmenter.image_encoders`."""
        return [self.model.clip.vision_model]

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Encode images (mode RGB, any sizes) once."""

        def encode(indices: list[int], pixels: torch.Tensor) -> Iterator[EncodedPhoto]:
            states = self.model.clip.vision_model(
                moved(pixels, self.device, self.model.dtype),
                interpolate_pos_encoding=True,
                output_hidden_states=True,
            ).hidden_states
            # The first state is the input of the first layer.
            layers = [rows(states[index + 1]) for index in self.model.config.extract_layers]
            for index, *own in zip(indices, *layers, strict=True):
                yield EncodedPhoto(tuple(own), (images[index].height, images[index].width))

        return encode_by_shape([self.reading(image) for image in images], encode)

    def find_rows(self, photos: Sequence[EncodedPhoto], texts: Sequence[str], instances: Flags) -> Rows:
        """Find the mask of each text, which is cut at CLIP's limit of 77 tokens; see `BatchedSegmenter`.

        CLIPSeg has no score: it is the mean probability inside the mask, or for an empty mask the confidence
        that there is nothing. The model has no instances, and ignores `instances`.
        """
        longest = self.model.config.text_config.max_position_embeddings
        tokens = tokenized(self.tokenizer, texts, longest).to(self.device)
        features = self.model.clip.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        layers = [rows_of(layer) for layer in zip(*(photo.activations for photo in photos), strict=True)]
        logits = self.model.decoder(layers, features).logits.float()
        found = logits.sigmoid()
        inside = found >= 0.5
        means = (found * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
        return logits, torch.where(inside.flatten(1).any(1), means, 1 - found.flatten(1).amax(1))
