"""SIS ground truth, whatever its layout: images with instance masks as COCO run lengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from saliency_r1.errors import SaliencyError

RunLengths = dict[str, Any]
"""A mask as compressed COCO run lengths: {"size": [height, width], "counts": bytes}."""


@dataclass(frozen=True)
class TrueInstance:
    """One salient instance.

    Attributes:
        mask: its run lengths.
        crowd: whether it is a group of unseparated instances; predictions on it are neither right nor wrong.
        category: the name of its category, which no metric looks at; None where there is none.
        synset: the WordNet number of what it is; None where that is not known.
    """

    mask: RunLengths
    crowd: bool = False
    category: str | None = None
    synset: str | None = None


@dataclass(frozen=True)
class InstanceImage:
    """A photo and its salient instances.

    Attributes:
        key: the photo's key in prediction files: the COCO image id, or the stem if there are no ids.
        name: unique in its data set.
        image: path of the photo, which need not be there.
        height, width: in pixels.
        instances: instances of the photo; empty if nothing is salient.
    """

    key: int | str
    name: str
    image: Path
    height: int
    width: int
    instances: tuple[TrueInstance, ...]


def encode(mask: np.ndarray) -> RunLengths:
    """Run lengths of a mask, bool (H, W)."""
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def decode(run_lengths: RunLengths) -> np.ndarray:
    """The mask of run lengths, bool (H, W)."""
    return coco_mask.decode(run_lengths).astype(bool)


def run_lengths_of(segmentation: object, height: int, width: int, where: str) -> RunLengths:
    """Compressed run lengths of a COCO segmentation: polygons, or run lengths as numbers, text or bytes.

    Args:
        segmentation: the field of that name.
        height, width: size of the photo.
        where: the file and the entry, for errors.

    Raises:
        SaliencyError: if it is none, or of another size than the photo.
    """
    if isinstance(segmentation, list):
        try:
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        except Exception as error:
            raise SaliencyError(
                f"{where}: its polygons are not lists of x, y, x, y, … ({type(error).__name__})"
            ) from None
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise SaliencyError(f"{where}: no segmentation, expected polygons or run lengths (size and counts)")
    size = segmentation["size"]
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise SaliencyError(f"{where}: run lengths of size {size}, expected the photo's [{height}, {width}]")
    counts = segmentation["counts"]
    try:
        if isinstance(counts, list):
            if sum(counts) != height * width or any(run < 0 for run in counts):
                raise ValueError("they do not add up to the size")
            return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        characters: bytes = counts.encode() if isinstance(counts, str) else counts
        if _covered(characters) != height * width:
            raise ValueError("they do not add up to the size")
        return {"size": [height, width], "counts": characters}
    except Exception as error:
        raise SaliencyError(f"{where}: broken run lengths ({error})") from None


def _covered(counts: bytes) -> int:
    """Count the pixels of compressed run lengths; pycocotools' C code does not check them.

    Characters have five bits from 48 on; the sixth says that the number continues; from the third run on the
    difference to the run before the last is written (pycocotools, common/maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = character - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {chr(character)!r}")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise ValueError("a negative run")
        runs.append(value)
        value = shift = 0
    if shift:
        raise ValueError("they end within a number")
    return sum(runs)
