"""Run the nano segmenter with onnxruntime, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saliency_r1.errors import SaliencyError
from saliency_r1.nano import EMBEDDED_SEGMENTER
from saliency_r1.nano.words import WordList, salient_text
from saliency_r1.runtime import SEGMENTER_GRAPHS, open_sessions, place_of
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.upsampling import guide_of, resized, sigmoid, upsample

if TYPE_CHECKING:
    from PIL import Image

EXPRESSIONS_AT_ONCE = 2
"""Expressions in one pass of the network: more do not fit into a CPU's caches."""


@dataclass(frozen=True)
class EncodedPhoto:
    """An image as the segmenter keeps it.

    Attributes:
        features: outputs of the network by their names.
        guide: the reduced image, whose edges the masks follow; see `upsampling.guide_of`.
        size: width and height of the image, in pixels.
    """

    features: Mapping[str, np.ndarray]
    guide: np.ndarray
    size: tuple[int, int]


class OnnxSegmenter:
    """Find what an expression names, as `saliency_r1.segmenters.nano.NanoSegmenter` does.

    Args:
        folder: folder of a nano segmenter with its graphs; None for the embedded one.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        SaliencyError: if the folder holds none, or onnxruntime does not support the device.

    Example:
        >>> segmenter = OnnxSegmenter("my-model/segmenter")  # doctest: +SKIP
        >>> segmenter.segment(segmenter.encode(image), ["the dog"]).probabilities.shape  # doctest: +SKIP
        (1, 300, 400)
    """

    name = "nano"
    salient_text = staticmethod(salient_text)

    def __init__(self, folder: str | Path | None = None, device: str = "auto") -> None:
        folder = Path(folder) if folder is not None else EMBEDDED_SEGMENTER
        self.device = place_of(device)
        self._words, self._length = _vocabulary(folder / "config.json")
        self._encode, self._segment = open_sessions([folder / name for name in SEGMENTER_GRAPHS], device)
        self._side = int(self._encode.get_inputs()[0].shape[1])
        self._features = [output.name for output in self._encode.get_outputs()]

    def encode(self, image: Image.Image) -> EncodedPhoto:
        """Encode an image (mode RGB, any size) once, for any number of expressions."""
        # BOX reduction first keeps the memory and the time of a very large photo bounded.
        small = image.resize((self._side, self._side), resample=3, reducing_gap=3.0)
        found = self._encode.run(self._features, {"pixels": np.asarray(small)[None]})
        return EncodedPhoto(dict(zip(self._features, found, strict=True)), guide_of(image), image.size)

    def segment(
        self, encoded: EncodedPhoto, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """Return the mask of each expression, and the IoU that the segmenter expects it to have.

        Args:
            encoded: what `encode` returned.
            expressions: any texts; words outside the vocabulary count as "some object".
            instances: ignored, the model knows no instances.
        """
        size = encoded.size[::-1]
        masks, scores = [np.zeros((0, *size), np.float32)], [np.zeros(0, np.float32)]
        for start in range(0, len(expressions), EXPRESSIONS_AT_ONCE):
            texts = expressions[start : start + EXPRESSIONS_AT_ONCE]
            words = np.array(self._words.encode(texts, self._length), np.int64)
            logits, quality = self._segment.run(["logits", "scores"], {**encoded.features, "words": words})
            scores.append(quality)
            if max(size) <= max(logits.shape[1:]):
                masks.append(sigmoid(resized(logits, size)))
            else:
                masks.append(upsample(logits, encoded.guide, size))
        # Without a copy where one pass was enough.
        return Segmentation(
            *(parts[1] if len(parts) == 2 else np.concatenate(parts) for parts in (masks, scores))
        )


def _vocabulary(path: Path) -> tuple[WordList, int]:
    """Read the word list of a saved segmenter, and the maximum number of words of an expression."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return WordList(values["words"]), int(values["length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaliencyError(f"{path.parent} holds no nano segmenter: {error}") from None
