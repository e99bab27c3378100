"""SAM 3 as a segmenter: text in, instances out."""

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
from saliency_r1.segmenters.candidates import kept, one_mask
from saliency_r1.segmenters.photo_reading import PhotoAndTextModel, Reading, read_reading

READING = Reading({"height": 1008, "width": 1008}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The published weights' own; their folder may say otherwise."""

THRESHOLD = 0.5
"""Minimum score of an instance, the confidence threshold of the original's image processor."""

EXPRESSIONS_AT_ONCE = 4
"""Bounds memory: an expression has feature maps of 288×288×256 of its own."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as SAM 3 keeps it.

    Attributes:
        features: features of each level, (1, C, h, w).
        positions: the position encoding of each level; the same tensors for all photos of one batch.
        size: height and width of the photo.
    """

    features: tuple[torch.Tensor, ...]
    positions: tuple[torch.Tensor, ...]
    size: tuple[int, int]


class Sam3Segmenter(PhotoAndTextModel, BatchedSegmenter):
    """Finds what an expression names with SAM 3 (arXiv:2511.16719).

    It was trained on short noun phrases, for each of which it finds all instances: a region is their union,
    an instance the surest of them. Of relations between objects it knows little.

    Args:
        model: transformers' `Sam3Model`.
        tokenizer: CLIP's.
        reading: how it preprocesses a photo.
        threshold: minimum score of an instance, in [0, 1].
        name: its name in results.
    """

    at_once = EXPRESSIONS_AT_ONCE

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reading: Reading = READING,
        *,
        threshold: float = THRESHOLD,
        name: str = "sam3",
    ) -> None:
        super().__init__(model, tokenizer, reading)
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

    def image_encoders(self) -> list[torch.nn.Module]:
        """See `BatchedSegmenter.image_encoders`."""
        return [self.model.vision_encoder]

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Look at images (mode RGB, any sizes) once."""

        def encode(indices: list[int], pixels: torch.Tensor) -> Iterator[EncodedPhoto]:
            vision = self.model.get_vision_features(moved(pixels, self.device, self.model.dtype))
            positions = tuple(rows(level)[0] for level in vision.fpn_position_encoding)
            for index, *levels in zip(indices, *map(rows, vision.fpn_hidden_states), strict=True):
                yield EncodedPhoto(tuple(levels), positions, (images[index].height, images[index].width))

        return encode_by_shape([self.reading(image) for image in images], encode)

    def find_rows(self, photos: Sequence[EncodedPhoto], texts: Sequence[str], instances: Flags) -> Rows:
        """Find the union of the instances of each text, or the best of them; see `BatchedSegmenter`.

        The model reads at most 32 tokens of a text. The score of an empty mask is how sure it is that there
        is nothing.
        """
        longest = self.model.config.text_config.max_position_embeddings
        tokens = tokenized(self.tokenizer, texts, longest, padding="max_length").to(self.device)
        output = self.model(
            vision_embeds=_vision(photos),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        )
        there = output.presence_logits.float().sigmoid() * output.pred_logits.float().sigmoid()
        masks, scores = [], []
        for single, logits, sure in zip(instances, output.pred_masks.float(), there, strict=True):
            found = kept(sure, self.threshold, 1 if single else len(sure))
            mask, score = one_mask(logits[found], sure[found])
            masks.append(mask)
            scores.append(score if len(found) else 1 - float(sure.max()))
        return torch.stack(masks), torch.tensor(scores, device=self.device)


def _vision(photos: Sequence[EncodedPhoto]) -> Any:
    """Return the model's inputs for the photo of each row; the photos have one size."""
    from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

    return Sam3VisionEncoderOutput(
        fpn_hidden_states=tuple(
            rows_of(level) for level in zip(*(photo.features for photo in photos), strict=True)
        ),
        fpn_position_encoding=tuple(level.expand(len(photos), -1, -1, -1) for level in photos[0].positions),
    )
