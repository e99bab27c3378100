"""Shared code of segmenters that process several photos in one pass of their network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
import torch.nn.functional as F

from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.base import Encoded, Flags, Segmentation, Segmenter, Sizes, Texts, segment_many

if TYPE_CHECKING:
    from PIL import Image

PHOTOS_AT_ONCE = 4
"""Photos in one pass of an image encoder: SAM's ViT-H takes about 3 GB for each at 1024 pixels."""

EXPRESSIONS_AT_ONCE = 32

Kept = TypeVar("Kept")

Rows: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Logits (R, h, w) of the masks of R expressions, and their scores (R,) in [0, 1]."""


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
    """A `saliency_r1.segmenters.base.Segmenter` whose `encode_many` and `find_rows` do the work."""

    name: str
    device: torch.device
    at_once: int = EXPRESSIONS_AT_ONCE
    """The most expressions of one `find_rows`."""

    @abstractmethod
    def encode_many(self, images: Sequence[Image.Image]) -> list[Encoded]:
        """Encode images (mode RGB, any sizes) once, several in one pass of the network."""

    @abstractmethod
    def find_rows(self, photos: Sequence[Encoded], texts: Sequence[str], instances: Flags) -> Rows:
        """Return the mask of each text in its photo, at the network's own size.

        Args:
            photos: the encoded photo of each text; several texts may have the same.
            texts: the expressions to find.
            instances: whether each text means one instance; see `Segmenter.segment`.
        """

    def size_of(self, encoded: Encoded) -> tuple[int, int]:
        """Return height and width of an encoded image."""
        height, width = encoded.size
        return height, width

    def resized(self, logits: torch.Tensor, encoded: Encoded, size: tuple[int, int]) -> torch.Tensor:
        """Return the masks of one image at a height and width, as probabilities (N, H, W).

        Args:
            logits: (N, h, w), rows of the result of `find_rows`.
            encoded: the image.
            size: height and width of the masks.
        """
        return stretched(logits, size).sigmoid_()

    @torch.inference_mode()
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
        sizes = [self.size_of(photo) for photo in encoded] if sizes is None else sizes
        masks = [[torch.zeros((0, *size), device=self.device)] for size in sizes]
        scores = [[torch.zeros(0, device=self.device)] for _ in sizes]
        for owners, texts in _flat(expressions, self.at_once):
            photos = [encoded[owner] for owner in owners]
            logits, sure = self.find_rows(photos, texts, [instances[owner] for owner in owners])
            start = 0
            for owner, same in groupby(owners):
                part = slice(start, start := start + len(list(same)))
                masks[owner].append(self.resized(logits[part], encoded[owner], sizes[owner]))
                scores[owner].append(sure[part].float())
        return [DeviceMasks(_joined(own), _joined(sure)) for own, sure in zip(masks, scores, strict=True)]

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


def rows_of(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack the part (1, …) of each row to one tensor (R, …); no copy if all are the same tensor."""
    if all(part is parts[0] for part in parts):
        return parts[0].expand(len(parts), *parts[0].shape[1:])
    return torch.cat(list(parts))


def rows(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Copy the rows (1, …) of a batch to separate tensors, so that keeping one does not keep the batch."""
    return [tensor] if len(tensor) == 1 else [row.clone() for row in tensor.split(1)]


def encode_by_shape(
    pixels: Sequence[torch.Tensor], encode: Callable[[list[int], torch.Tensor], Iterable[Kept]]
) -> list[Kept]:
    """Encode photos, those of one shape together.

    Args:
        pixels: what the network reads of each photo, (1, …).
        encode: takes the numbers of some photos and their pixels (B, …), and returns what is kept of each.
    """
    found: dict[int, Kept] = {}
    for indices in same_shapes(pixels):
        found |= zip(indices, encode(indices, torch.cat([pixels[index] for index in indices])), strict=True)
    return [found[index] for index in range(len(pixels))]


def tokenized(tokenizer: Any, texts: Sequence[str], most: int, *, padding: bool | str = True) -> Any:
    """Return texts as tokens: `input_ids` and `attention_mask`, padded on the right.

    Args:
        tokenizer: a tokenizer of transformers.
        texts: any texts.
        most: tokens of a text; a longer one is cut.
        padding: True pads to the longest of the texts, `max_length` to `most` tokens.
    """
    return tokenizer(
        list(texts),
        padding=padding,
        padding_side="right",
        truncation=True,
        max_length=most,
        return_tensors="pt",
    )


def _flat(expressions: Texts, most: int) -> Iterator[tuple[list[int], list[str]]]:
    """Yield the expressions of all images, each with its image's number, at most `most` at a time."""
    owners = [owner for owner, texts in enumerate(expressions) for _ in texts]
    texts = [text for some in expressions for text in some]
    for start in range(0, len(texts), most):
        yield owners[start : start + most], texts[start : start + most]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Join the parts, of which the first is empty; without a copy if there is only one more."""
    return parts[1] if len(parts) == 2 else torch.cat(parts)


def stretched(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize logits (N, h, w), bilinear, float32 (N, H, W)."""
    return F.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
