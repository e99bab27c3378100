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

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Look at an image (mode RGB, any size) once; it is squeezed to the model's square."""
        side = self.model.config.image_size
        # BOX reduction first keeps the memory and the time of a very large photo bounded.
        small = image.resize((side, side), resample=3, reducing_gap=3.0)
        pixels = torch.from_numpy(np.array(small))[None].to(self.device)
        return EncodedPhoto(self.model.encode(normalise(pixels)), image.size)

    @torch.inference_mode()
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
        width, height = encoded.size
        if not expressions:
            return Segmentation(np.zeros((0, height, width), np.float32), np.zeros(0, np.float32))
        words = torch.tensor(self._words.encode(expressions, self.model.config.length), device=self.device)
        count = torch.tensor([len(expressions)], device=self.device)
        output = self.model.segment(encoded.features.repeat(count), words)
        logits = F.interpolate(output.stride4, size=(height, width), mode="bilinear", align_corners=False)
        return Segmentation(
            logits[:, 0].sigmoid_().cpu().numpy(),
            output.quality.sigmoid().cpu().numpy(),
        )
