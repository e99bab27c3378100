"""Find masks fast: encode an image once, and segment a pair of image and expression once.

In training the same photo is used many times: by the samples of a group, by the expressions of an answer, in
the next epoch. Results are kept up to a limit of memory; the least recently used are dropped first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from saliency_r1.memory import BoundedMemory
from saliency_r1.segmenters.base import Segmentation, Segmenter, encode_many
from saliency_r1.segmenters.batched import find_many

if TYPE_CHECKING:
    from PIL import Image

MEMORY_BYTES = 512 * 1024**2
EXPRESSIONS_AT_ONCE = 32
_Found = tuple[torch.Tensor, torch.Tensor]
"""A kept mask, uint8 (h, w), probability times 255, and its score, float32 ()."""
_Meant = tuple[Hashable, bool]
"""The key of an image, and whether its expressions mean instances."""


@dataclass(frozen=True)
class Question:
    """An image and its expressions.

    Attributes:
        key: the image's key; equal keys mean equal images.
        image: mode RGB.
        expressions: any number, repeats allowed.
        instances: whether each means one instance, not a region.
    """

    key: Hashable
    image: Image.Image
    expressions: Sequence[str]
    instances: bool = False


@dataclass
class Counts:
    """The work of a `CachedSegmenter` so far.

    Attributes:
        encoded: number of encoded images.
        segmented: number of segmented pairs of image and expression.
        asked: number of requested pairs.
        seconds: seconds in the segmenter.
    """

    encoded: int = 0
    segmented: int = 0
    asked: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class GreyMasks:
    """The masks of a question on the segmenter's device, with an eighth of the memory of float64.

    Attributes:
        values: uint8 (N, h, w), probability times 255.
        scores: float32 (N,) in [0, 1].
    """

    values: torch.Tensor
    scores: torch.Tensor


def compared_size(height: int, width: int, longest: int | None) -> tuple[int, int]:
    """Return height and width of a photo's masks for comparison: the photo's, or within `longest`."""
    scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class CachedSegmenter:
    """A segmenter with a cache.

    Args:
        segmenter: the frozen segmenter.
        memory_bytes: maximum bytes of kept encodings and masks; 0 keeps nothing after a call.
        longest: maximum longer side of the masks, pixels; None for the photo's size.

    Attributes:
        counts: its work so far.
    """

    def __init__(
        self, segmenter: Segmenter, memory_bytes: int = MEMORY_BYTES, *, longest: int | None = None
    ) -> None:
        self.segmenter = segmenter
        self.longest = longest
        self.counts = Counts()
        self._kept = BoundedMemory(memory_bytes)

    @property
    def kept_bytes(self) -> int:
        """The size of the cache in bytes."""
        return self._kept.bytes

    def segment(self, questions: Sequence[Question]) -> list[Segmentation]:
        """Return `find` as arrays on the CPU; probabilities are multiples of 1/255, as in a saved mask."""
        return [
            Segmentation(found.values.cpu().numpy() / np.float32(255), found.scores.float().cpu().numpy())
            for found in self.find(questions)
        ]

    def find(self, questions: Sequence[Question]) -> list[GreyMasks]:
        """Return the masks of each question's expressions, with the segmenter's scores.

        What is not cached is computed together over all questions, `EXPRESSIONS_AT_ONCE` at a time.
        """
        answers: dict[tuple[_Meant, str], _Found] = {}
        images: dict[Hashable, Image.Image] = {}
        missing: dict[_Meant, list[str]] = {}
        for question in questions:
            self.counts.asked += len(question.expressions)
            meant = question.key, question.instances
            for expression in question.expressions:
                if (meant, expression) in answers or expression in missing.get(meant, ()):
                    continue
                known = self._kept.get(("mask", meant, expression))
                if known is not None:
                    answers[meant, expression] = known
                else:
                    images[question.key] = question.image
                    missing.setdefault(meant, []).append(expression)
        for part in _parts(missing):
            answers.update(self._compute({key: images[key] for (key, _), _ in part}, part))
        return [
            self._joined(
                [answers[(question.key, question.instances), text] for text in question.expressions],
                question.image,
            )
            for question in questions
        ]

    def _compute(
        self, images: dict[Hashable, Image.Image], part: list[tuple[_Meant, list[str]]]
    ) -> Iterator[tuple[tuple[_Meant, str], _Found]]:
        start = perf_counter()
        encoded = {key: self._kept.get(("image", key)) for key in images}
        fresh = [key for key, known in encoded.items() if known is None]
        for key, found in zip(
            fresh, encode_many(self.segmenter, [images[key] for key in fresh]), strict=True
        ):
            encoded[key] = found
            self._kept.put(("image", key), found)
        results = find_many(
            self.segmenter,
            [encoded[key] for (key, _), _ in part],
            [texts for _, texts in part],
            [instances for (_, instances), _ in part],
            [self._size(images[key]) for (key, _), _ in part],
        )
        self.counts.encoded += len(fresh)
        self.counts.segmented += sum(len(texts) for _, texts in part)
        self.counts.seconds += perf_counter() - start
        for (meant, texts), result in zip(part, results, strict=True):
            grey = (result.probabilities * 255).round().to(torch.uint8)
            for text, values, score in zip(texts, grey, result.scores, strict=True):
                found = values.clone(), score.clone()  # otherwise each would keep all of them
                self._kept.put(("mask", meant, text), found)
                yield (meant, text), found

    def _size(self, image: Image.Image) -> tuple[int, int]:
        return compared_size(image.height, image.width, self.longest)

    def _joined(self, found: Sequence[_Found], image: Image.Image) -> GreyMasks:
        if not found:
            return GreyMasks(torch.zeros((0, *self._size(image)), dtype=torch.uint8), torch.zeros(0))
        masks, scores = zip(*found, strict=True)
        return GreyMasks(torch.stack(masks), torch.stack(scores))


def _parts(missing: dict[_Meant, list[str]]) -> Iterator[list[tuple[_Meant, list[str]]]]:
    """Yield images with expressions, at most `EXPRESSIONS_AT_ONCE` at a time; long lists are split."""
    part: list[tuple[_Meant, list[str]]] = []
    room = EXPRESSIONS_AT_ONCE
    for meant, texts in missing.items():
        rest = texts
        while rest:
            part.append((meant, rest[:room]))
            room, rest = room - len(rest[:room]), rest[room:]
            if not room:
                yield part
                part, room = [], EXPRESSIONS_AT_ONCE
    if part:
        yield part
