"""The embedded referring segmenter, 5 M parameters, for any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from saliency_r1.device import choose_device
from saliency_r1.nano.segmenter_model import EncodedImage, NanoSegmenterModel, normalise
from saliency_r1.segmenters.base import Segmentation

if TYPE_CHECKING:
    from PIL import Image

EMBEDDED = Path(__file__).parent.parent / "nano" / "weights" / "segmenter"

CPU_EXPRESSIONS = 2
"""Expressions that a CPU looks for in one pass: more of them leave its caches, and each takes longer."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as the nano segmenter keeps it: its features, and its size (width, height) in pixels."""

    features: EncodedImage
    size: tuple[int, int]


class NanoSegmenter:
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

    def __init__(self, model: NanoSegmenterModel, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._words = model.word_list

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None, *, device: str = "auto") -> NanoSegmenter:
        """Load a segmenter that `saliency-r1 train segmenter` made; the embedded one without a folder.

        Raises:
            SaliencyError: if the folder holds none, or the machine has no such device.
        """
        return cls(NanoSegmenterModel.from_pretrained(Path(folder) if folder else EMBEDDED), device)

    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once; it is squeezed to the model's square."""
        return self.encode_many([image])[0]

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """`encode` of several images: on a GPU all at once; a CPU is faster with one after the other."""
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
                found.append(EncodedPhoto(EncodedImage(*parts), images[len(found)].size))
        return found

    def segment(
        self, encoded: EncodedPhoto, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """The mask of each expression, and the IoU that the segmenter expects it to have.

        Args:
            encoded: from `encode`.
            expressions: any texts; words outside the vocabulary count as "some object".
            instances: ignored, the model knows no instances.

        Returns:
            Probabilities float32 (N, H, W) at the image's size; scores float32 (N,) in [0, 1].
        """
        return self.segment_many([encoded], [expressions], [instances])[0]

    @torch.inference_mode()
    def segment_many(
        self,
        encoded: Sequence[EncodedPhoto],
        expressions: Sequence[Sequence[str]],
        instances: Sequence[bool],
    ) -> list[Segmentation]:
        """`segment` of several images, each with its own expressions: on a GPU in one pass of the network."""
        counts = [len(texts) for texts in expressions]
        if not sum(counts):
            return [
                Segmentation(np.zeros((0, *photo.size[::-1]), np.float32), np.zeros(0, np.float32))
                for photo in encoded
            ]
        flat = [text for texts in expressions for text in texts]
        words = torch.tensor(self._words.encode(flat, self.model.config.length), device=self.device)
        parts = zip(*(photo.features for photo in encoded), strict=True)
        features = EncodedImage(*(torch.cat(part) if len(encoded) > 1 else part[0] for part in parts))
        owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(self.device)
        step = CPU_EXPRESSIONS if self.device.type == "cpu" else len(flat)
        outputs = [
            self.model.segment(EncodedImage(*(part.index_select(0, rows) for part in features)), asked)
            for rows, asked in zip(owners.split(step), words.split(step), strict=True)
        ]
        masks = torch.cat([output.stride2 for output in outputs])
        qualities = torch.cat([output.quality for output in outputs])
        found = []
        for photo, logits, quality in zip(encoded, masks.split(counts), qualities.split(counts), strict=True):
            width, height = photo.size
            if len(logits):
                logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            else:
                logits = logits.new_zeros((0, 1, height, width))
            found.append(Segmentation(logits[:, 0].sigmoid_().cpu().numpy(), quality.sigmoid().cpu().numpy()))
        return found
