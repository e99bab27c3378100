"""What a referring segmenter is: image and expression in, mask out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Encoded: TypeAlias = Any
"""What a segmenter keeps of an image between `encode` and `segment`; nobody else looks inside."""

Texts: TypeAlias = Sequence[Sequence[str]]
"""The expressions of each of several images."""
Flags: TypeAlias = Sequence[bool]
"""Something that holds or does not, for each image."""
Sizes: TypeAlias = Sequence[tuple[int, int]] | None
"""Height and width of the masks of each image; None for the images' own."""


@dataclass(frozen=True)
class Segmentation:
    """The masks of N expressions on one image.

    Attributes:
        probabilities: float32 (N, H, W) in [0, 1], at the image's size.
        scores: float32 (N,) in [0, 1], how sure the segmenter is of each mask.
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
    """Finds what an expression names; it knows nothing of policies: the text is the channel."""

    @property
    def name(self) -> str:
        """How results call it."""
        ...

    def encode(self, image: Image.Image) -> Encoded:
        """Look at an image (mode RGB) once, for any number of expressions."""
        ...

    def segment(
        self, encoded: Encoded, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """The mask of each expression; an expression that names nothing in the image has an empty one.

        Args:
            encoded: from `encode`.
            expressions: what to find.
            instances: whether each expression means one instance (`<ins>`), and not a region, which may have
                several (`<rg>`). A model that knows no instances ignores it.
        """
        ...


def encode_many(segmenter: Segmenter, images: Sequence[Image.Image]) -> list[Encoded]:
    """`encode` of several images: at once if the segmenter has an `encode_many` itself, else one by one."""
    own = getattr(segmenter, "encode_many", None)
    return own(images) if own is not None else [segmenter.encode(image) for image in images]


def segment_many(
    segmenter: Segmenter,
    encoded: Sequence[Encoded],
    expressions: Sequence[Sequence[str]],
    instances: Sequence[bool],
) -> list[Segmentation]:
    """`segment` of several images, each with its own expressions, which mean instances or regions.

    At once if the segmenter has a `segment_many` itself, else image by image.
    """
    own = getattr(segmenter, "segment_many", None)
    if own is not None:
        return own(encoded, expressions, instances)
    return [
        segmenter.segment(image, texts, instances=each)
        for image, texts, each in zip(encoded, expressions, instances, strict=True)
    ]
