"""The protocol of a referring segmenter: it takes an image and expressions, and returns masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

Encoded: TypeAlias = Any
"""The data that a segmenter keeps of an image between `encode` and `segment`; opaque to others."""

Texts: TypeAlias = Sequence[Sequence[str]]
"""The expressions of each of several images."""
Flags: TypeAlias = Sequence[bool]
"""A flag for each image."""
Sizes: TypeAlias = Sequence[tuple[int, int]] | None
"""Height and width of the masks of each image; None for the images' own."""


@dataclass(frozen=True)
class Segmentation:
    """The masks of N expressions on one image.

    Attributes:
        probabilities: float32 (N, H, W) in [0, 1], at the image's size.
        scores: float32 (N,) in [0, 1], the segmenter's score of each mask, if it can the expected IoU.
    """

    probabilities: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        """Check that the two agree."""
        if self.probabilities.ndim != 3 or self.scores.shape != self.probabilities.shape[:1]:
            raise ValueError(
                f"expected probabilities (N, H, W) and scores (N,), got {self.probabilities.shape} "
                f"and {self.scores.shape}"
            )


@runtime_checkable
class Segmenter(Protocol):
    """Finds what an expression names. It has no access to policies: they communicate only through text."""

    @property
    def name(self) -> str:
        """The segmenter's name in results."""
        ...

    def encode(self, image: Image.Image) -> Encoded:
        """Encode an image (mode RGB) once, for any number of expressions."""
        ...

    def segment(
        self, encoded: Encoded, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """Return the mask of each expression; it is empty if the expression names nothing in the image.

        Args:
            encoded: the result of `encode`.
            expressions: the expressions to find.
            instances: whether each expression means one instance (`<ins>`), not a region (`<rg>`), which may
                have several. A model without instances ignores it.
        """
        ...


def salient_texts(segmenter: Segmenter, expressions: Sequence[str]) -> list[str]:
    """Return how a segmenter is asked for the salient object that each expression names.

    A segmenter that finds it better in other words has a `salient_text`, from expression to expression.
    """
    own = getattr(segmenter, "salient_text", None)
    return list(expressions) if own is None else [own(text) for text in expressions]


def answer_texts(segmenter: Segmenter, expressions: Sequence[str], task: Task) -> list[str]:
    """Return how a segmenter is asked for an answer of a task.

    The one thing of SOD stands out, and so does the only instance of SIS. Several instances are told apart by
    their expressions alone, and what a group shares need not stand out.
    """
    alone = task is Task.SOD or (task is Task.SIS and len(expressions) == 1)
    return salient_texts(segmenter, expressions) if alone else list(expressions)


def encode_many(segmenter: Segmenter, images: Sequence[Image.Image]) -> list[Encoded]:
    """Encode several images: at once if the segmenter has an `encode_many`, otherwise one by one."""
    own = getattr(segmenter, "encode_many", None)
    return own(images) if own is not None else [segmenter.encode(image) for image in images]


def segment_many(
    segmenter: Segmenter,
    encoded: Sequence[Encoded],
    expressions: Sequence[Sequence[str]],
    instances: Sequence[bool],
) -> list[Segmentation]:
    """Segment several images, each with its own expressions, which mean instances or regions.

    This happens at once if the segmenter has a `segment_many`, otherwise image by image.
    """
    own = getattr(segmenter, "segment_many", None)
    if own is not None:
        return own(encoded, expressions, instances)
    return [
        segmenter.segment(image, texts, instances=each)
        for image, texts, each in zip(encoded, expressions, instances, strict=True)
    ]
