"""The fast way from expressions to masks: an image is encoded once, a pair of image and expression once.

In training the same photo is asked about again and again: by the samples of a group, by the expressions of an
answer, in the next epoch. What was computed is kept up to a bound on memory, the least recently used goes
first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from saliency_r1.memory import BoundedMemory
from saliency_r1.segmenters.base import Segmentation, Segmenter, encode_many, segment_many

if TYPE_CHECKING:
    from PIL import Image

MEMORY_BYTES = 512 * 1024**2
EXPRESSIONS_AT_ONCE = 32
_Found = tuple[np.ndarray, float]
"""A mask as it is kept, uint8 (H, W), probability times 255, and its score."""
_Meant = tuple[Hashable, bool]
"""The key of an image, and whether instances are looked for in it."""


@dataclass(frozen=True)
class Question:
    """An image and what is looked for in it.

    Attributes:
        key: of the image, the same whenever the image is the same.
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
    """What a `CachedSegmenter` did so far.

    Attributes:
        encoded: images that the segmenter encoded.
        segmented: pairs of image and expression that it segmented.
        asked: pairs that were asked for.
        seconds: spent in the segmenter.
    """

    encoded: int = 0
    segmented: int = 0
    asked: int = 0
    seconds: float = 0.0


class CachedSegmenter:
    """A segmenter that remembers.

    Args:
        segmenter: the frozen one.
        memory_bytes: the most that remembered encodings and masks may take together; 0 to remember nothing
            beyond a call.

    Attributes:
        counts: what it did so far.
    """

    def __init__(self, segmenter: Segmenter, memory_bytes: int = MEMORY_BYTES) -> None:
        self.segmenter = segmenter
        self.counts = Counts()
        self._kept = BoundedMemory(memory_bytes)

    @property
    def kept_bytes(self) -> int:
        """What is remembered, in bytes."""
        return self._kept.bytes

    def segment(self, questions: Sequence[Question]) -> list[Segmentation]:
        """The masks of each question's expressions, and the segmenter's scores of them.

        All that is not known yet is computed together, `EXPRESSIONS_AT_ONCE` at a time, whichever questions
        it belongs to. Probabilities are rounded to multiples of 1/255, as a saved mask holds them.
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
            _joined(
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
        results = segment_many(
            self.segmenter,
            [encoded[key] for (key, _), _ in part],
            [texts for _, texts in part],
            [instances for (_, instances), _ in part],
        )
        self.counts.encoded += len(fresh)
        self.counts.segmented += sum(len(texts) for _, texts in part)
        self.counts.seconds += perf_counter() - start
        for (meant, texts), result in zip(part, results, strict=True):
            for text, probability, score in zip(texts, result.probabilities, result.scores, strict=True):
                found = np.rint(probability * np.float32(255)).astype(np.uint8), float(score)
                self._kept.put(("mask", meant, text), found)
                yield (meant, text), found


def _joined(found: Sequence[_Found], image: Image.Image) -> Segmentation:
    masks = np.zeros((len(found), image.height, image.width), np.float32)
    for row, (mask, _) in enumerate(found):
        np.divide(mask, np.float32(255), out=masks[row])
    return Segmentation(masks, np.array([score for _, score in found], np.float32))


def _parts(missing: dict[_Meant, list[str]]) -> Iterator[list[tuple[_Meant, list[str]]]]:
    """The images with their expressions, in parts of `EXPRESSIONS_AT_ONCE` at most; a long list is cut."""
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
