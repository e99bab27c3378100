"""The embedded referring segmenter, 5 M parameters, for any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from saliency_r1.device import choose_device
from saliency_r1.nano import EMBEDDED_SEGMENTER
from saliency_r1.nano.segmenter_model import EncodedImage, NanoSegmenterModel, SegmenterOutput, normalise
from saliency_r1.nano.words import salient_text
from saliency_r1.segmenters.base import Flags
from saliency_r1.segmenters.batched import BatchedSegmenter, Rows, stretched
from saliency_r1.segmenters.torch_upsampling import upsample
from saliency_r1.upsampling import guide_of

if TYPE_CHECKING:
    from PIL import Image

EMBEDDED = EMBEDDED_SEGMENTER

CPU_EXPRESSIONS = 2
"""Expressions that a CPU looks for in one pass: more of them leave its caches, and each takes longer."""

GPU_EXPRESSIONS = 256


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as the nano segmenter keeps it.

    Attributes:
        features: the network's features.
        guide: the image in small, whose edges the masks follow; see `upsampling.guide_of`.
        size: width and height of the image, in pixels.
    """

    features: EncodedImage
    guide: np.ndarray
    size: tuple[int, int]


class NanoSegmenter(BatchedSegmenter):
    """Finds what an expression names: nouns, places, sizes and colours; see `nano.segmenter_model`.

    Args:
        model: the network.
        device: where it runs, in float32.

    Example:
        >>> segmenter = NanoSegmenter.from_pretrained()  # doctest: +SKIP
        >>> encoded = segmenter.encode(image)  # doctest: +SKIP
        >>> segmenter.segment(encoded, ["the dog", "the left ball"]).probabilities.shape  # doctest: +SKIP
        (2, 300, 400)
    """

    name = "nano"
    salient_text = staticmethod(salient_text)

    def __init__(self, model: NanoSegmenterModel, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.at_once = CPU_EXPRESSIONS if self.device.type == "cpu" else GPU_EXPRESSIONS
        self._words = model.word_list

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None, *, device: str = "auto") -> NanoSegmenter:
        """Load a segmenter that `saliency-r1 train segmenter` made; the embedded one without a folder.

        Raises:
            SaliencyError: if the folder holds none, or the machine has no such device.
        """
        return cls(NanoSegmenterModel.from_pretrained(Path(folder) if folder else EMBEDDED), device)

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Look at images (mode RGB, any sizes) once; they are squeezed to the model's square.

        On a GPU all at once; a CPU is faster with one after the other.
        """
        side = self.model.config.image_size
        # BOX reduction first keeps the memory and the time of a very large photo bounded.
        small = [np.array(image.resize((side, side), resample=3, reducing_gap=3.0)) for image in images]
        step = 1 if self.device.type == "cpu" else max(1, len(small))
        found: list[EncodedPhoto] = []
        for start in range(0, len(small), step):
            pixels = torch.from_numpy(np.stack(small[start : start + step])).to(self.device)
            maps = self.model.encode(normalise(pixels))
            for row in range(len(pixels)):
                # Copies, so that keeping one does not keep the whole batch; laid out as they were.
                parts = (part[row : row + 1].clone() for part in maps) if step > 1 else maps
                image = images[len(found)]
                found.append(EncodedPhoto(EncodedImage(*parts), guide_of(image), image.size))
        return found

    def find_rows(self, photos: Sequence[EncodedPhoto], texts: Sequence[str], instances: Flags) -> Rows:
        """Find the mask of each text, and the IoU that the segmenter expects it to have.

        Words outside the vocabulary count as "some object". The model has no instances, and ignores
        `instances`.
        """
        output = self._segment(photos, texts)
        return output.stride2[:, 0], output.quality.sigmoid()

    def size_of(self, encoded: EncodedPhoto) -> tuple[int, int]:
        """See `BatchedSegmenter.size_of`."""
        return encoded.size[::-1]

    def resized(self, logits: torch.Tensor, encoded: EncodedPhoto, size: tuple[int, int]) -> torch.Tensor:
        """Return the masks of one image at a size; larger masks follow the edges of the image."""
        if max(size) <= max(logits.shape[1:]):
            return stretched(logits, size).sigmoid_()
        guide = torch.from_numpy(encoded.guide).to(self.device)
        return upsample(logits[:, None].float(), guide, size)[:, 0]

    @torch.inference_mode()
    def logits(self, encoded: EncodedPhoto, expression: str) -> torch.Tensor:
        """Return a mask as the network gives it, before it is brought to the image's size.

        Returns:
            Logits float32 (1, 1, h, w) of the whole image.
        """
        return self._segment([encoded], [expression]).stride2.float()

    def _segment(self, encoded: Sequence[EncodedPhoto], texts: Sequence[str]) -> SegmenterOutput:
        words = torch.tensor(self._words.encode(texts, self.model.config.length), device=self.device)
        features = (photo.features for photo in encoded)
        return self.model.segment(EncodedImage(*map(torch.cat, zip(*features, strict=True))), words)
