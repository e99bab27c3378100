"""Shared code of segmenters that process several photos in one pass of their network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.base import Encoded, Flags, Segmentation, Segmenter, Sizes, Texts, segment_many

if TYPE_CHECKING:
    from PIL import Image

PHOTOS_AT_ONCE = 4
"""Photos in one pass of an image encoder: SAM's ViT-H takes about 3 GB for each at 1024 pixels."""

EXPRESSIONS_AT_ONCE = 32


@dataclass(frozen=True)
class DeviceMasks:
    """The masks of N expressions on one photo, on the segmenter's device.

    Attributes:
        probabilities: float32 (N, H, W) in [0, 1].
        scores: float32 (N,) in [0, 1], the segmenter's score of each mask.
    """

    probabilities: torch.Tensor
    scores: torch.Tensor


class BatchedSegmenter(ABC):
    """A `saliency_r1.segmenters.base.Segmenter` whose `encode_many` and `find_many` do the work."""

    name: str

    @abstractmethod
    def encode_many(self, images: Sequence[Image.Image]) -> list[Encoded]:
        """Encode images (mode RGB, any sizes) once, several in one pass of the network."""

    @abstractmethod
    def find_many(
        self, encoded: Sequence[Encoded], expressions: Texts, instances: Flags, sizes: Sizes = None
    ) -> list[DeviceMasks]:
        """Return the masks of several images, each with its own expressions, on the device.

        Args:
            encoded: the result of `encode_many`.
            expressions: the expressions to find in each image.
            instances: whether each expression of an image means one instance; see `Segmenter.segment`.
            sizes: height and width of the masks of each image; None for the image's own.
        """

    def image_encoders(self) -> list[torch.nn.Module]:
        """The modules that encode images of one size, which are most of the work; may be empty."""
        return []

    def compile(self, **options: Any) -> None:
        """Compile the image encoders with torch; the first photos then take minutes, the others less time.

        Args:
            options: options of `torch.compile`.

        Raises:
            SaliencyError: if the segmenter has no image encoder of one size.
        """
        encoders = self.image_encoders()
        if not encoders:
            raise SaliencyError(
                f"the segmenter {self.name} has no image encoder of one size, which is what compiling pays "
                "for: leave segmenter_compile out"
            )
        for encoder in encoders:
            encoder.compile(**options)

    def encode(self, image: Image.Image) -> Encoded:
        """Encode an image (mode RGB, any size) once, for any number of expressions."""
        return self.encode_many([image])[0]

    def segment(
        self, encoded: Encoded, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        """Return the mask of each expression at the image's size; see `Segmenter.segment` and the class."""
        return self.segment_many([encoded], [expressions], [instances])[0]

    def segment_many(
        self,
        encoded: Sequence[Encoded],
        expressions: Sequence[Sequence[str]],
        instances: Sequence[bool],
    ) -> list[Segmentation]:
        """Segment several images, each with its own expressions, in as few passes as memory allows."""
        return [
            Segmentation(found.probabilities.cpu().numpy(), found.scores.cpu().numpy())
            for found in self.find_many(encoded, expressions, instances)
        ]


def find_many(
    segmenter: Segmenter,
    encoded: Sequence[Encoded],
    expressions: Sequence[Sequence[str]],
    instances: Sequence[bool],
    sizes: Sequence[tuple[int, int]],
) -> list[DeviceMasks]:
    """Return the masks of several images at given sizes; see `BatchedSegmenter.find_many`.

    Masks of other kinds of segmenters are averaged or stretched to the sizes.
    """
    if isinstance(segmenter, BatchedSegmenter):
        return segmenter.find_many(encoded, expressions, instances, sizes)
    return [
        DeviceMasks(_resized(torch.from_numpy(found.probabilities), size), torch.from_numpy(found.scores))
        for found, size in zip(segment_many(segmenter, encoded, expressions, instances), sizes, strict=True)
    ]


def _resized(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if not len(masks):
        return masks.new_zeros((0, *size))
    return F.interpolate(masks[:, None], size, mode="area")[:, 0]


def same_shapes(tensors: Sequence[torch.Tensor], most: int = PHOTOS_AT_ONCE) -> Iterator[list[int]]:
    """Yield the indices of tensors of one shape, at most `most` at a time, every index once."""
    by_shape: dict[torch.Size, list[int]] = {}
    for index, tensor in enumerate(tensors):
        by_shape.setdefault(tensor.shape, []).append(index)
    for indices in by_shape.values():
        yield from (indices[start : start + most] for start in range(0, len(indices), most))


def rows_of(parts: Sequence[torch.Tensor], owners: Sequence[int]) -> torch.Tensor:
    """Stack the part (1, …) of each owner as rows of one tensor (R, …); no copy for a single owner."""
    if len(set(owners)) == 1:
        return parts[owners[0]].expand(len(owners), *parts[owners[0]].shape[1:])
    return torch.cat([parts[owner] for owner in owners])


def rows(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Copy the rows (1, …) of a batch to separate tensors, so that keeping one does not keep the batch."""
    return [tensor] if len(tensor) == 1 else [row.clone() for row in tensor.split(1)]


def flat(
    expressions: Sequence[Sequence[str]], most: int = EXPRESSIONS_AT_ONCE
) -> Iterator[tuple[list[int], list[str]]]:
    """Yield the expressions of all images, each with its image's number, at most `most` at a time."""
    owners = [owner for owner, texts in enumerate(expressions) for _ in texts]
    texts = [text for some in expressions for text in some]
    for start in range(0, len(texts), most):
        yield owners[start : start + most], texts[start : start + most]


class Collected:
    """Collect masks and scores row by row, in the order of `flat`, and resize them to each image's size.

    Args:
        expressions: the expressions of all images.
        sizes: height and width of the masks of each image.
        device: the device of the tensors.
    """

    def __init__(
        self, expressions: Sequence[Sequence[str]], sizes: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        self._masks = [[torch.zeros((0, *size), device=device)] for size in sizes]
        self._scores = [[torch.zeros(0, device=device)] for _ in expressions]

    def add(
        self,
        owners: Sequence[int],
        logits: torch.Tensor,
        scores: torch.Tensor,
        scaled: Callable[[torch.Tensor, int], torch.Tensor],
        *,
        probabilities: bool = False,
    ) -> None:
        """Add rows of logits (R, h, w) and scores (R,).

        Args:
            owners: the number of each row's image, in rising order.
            logits: the logits of the masks.
            scores: in [0, 1].
            scaled: returns the logits (N, h, w) of the image with that number at its size.
            probabilities: whether it returns probabilities.
        """
        start = 0
        for owner, same in groupby(owners):
            part = slice(start, start := start + len(list(same)))
            masks = scaled(logits[part], owner)
            self._masks[owner].append(masks if probabilities else masks.sigmoid_())
            self._scores[owner].append(scores[part].float())

    def masks(self) -> list[DeviceMasks]:
        """Return the masks of each image."""
        return [
            DeviceMasks(_joined(masks), _joined(scores))
            for masks, scores in zip(self._masks, self._scores, strict=True)
        ]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Join the parts, of which the first is empty; without a copy if there is only one more."""
    return parts[1] if len(parts) == 2 else torch.cat(parts)


def stretched(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize logits (N, h, w), bilinear, float32 (N, H, W)."""
    return F.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
