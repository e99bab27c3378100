"""Find photos that are equal, or nearly equal, by the file's hash and by a perceptual hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

NEAR_BITS = 10
"""Perceptual hashes that differ in at most so many of 64 bits may belong to one photo …"""

NEAR_CORRELATION = 0.96
"""… and do if the small grey pictures have at least this correlation."""

_SIDE = 32
_KEPT = 8
_SMALL = 16
# The rows of the discrete cosine transform (type 2) that are kept.
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(_KEPT), np.arange(_SIDE) + 0.5))
_BLOCK = 512


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint by which duplicates are found.

    Attributes:
        name: the photo's name.
        digest: SHA-256 of the file.
        bits: the perceptual hash, 64 bits: signs of the lowest cosine coefficients of the grey picture at
            32×32, against their median (pHash).
        small: the grey picture at 16×16, of mean 0 and length 1; float32 (256,).
    """

    name: str
    digest: str
    bits: int
    small: np.ndarray


def fingerprint(name: str, digest: str, photo: Image.Image) -> Fingerprint:
    """Compute the fingerprint of a photo."""
    grey = photo.convert("L")
    side = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    low = (_COSINES @ side @ _COSINES.T).ravel()
    signs = low > np.median(low[1:])
    small = np.asarray(grey.resize((_SMALL, _SMALL), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    bits = int(np.packbits(signs).view(">u8")[0])
    return Fingerprint(name, digest, bits, small / length if length > 1e-3 else small * 0)


def duplicates(
    photos: Sequence[Fingerprint], others: Sequence[Fingerprint] | None = None
) -> Iterator[tuple[str, str, bool]]:
    """Find pairs of equal photos.

    Args:
        photos: a set.
        others: another set; None searches within the first.

    Yields:
        Name, the other's name, and whether the files are equal (otherwise they look nearly equal).
    """
    within = others is None
    second = photos if others is None else others
    by_digest: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(second):
        by_digest[one.digest].append(index)
    if not photos or not second:
        return
    bits = np.array([one.bits for one in photos], np.uint64)
    other_bits = bits if within else np.array([one.bits for one in second], np.uint64)
    for start in range(0, len(photos), _BLOCK):
        block = slice(start, start + _BLOCK)
        near = np.bitwise_count(bits[block, None] ^ other_bits[None]) <= NEAR_BITS
        candidates = defaultdict(set)
        for row, column in np.argwhere(near).tolist():
            candidates[start + row].add(column)
        for index, one in enumerate(photos[block], start):
            same = by_digest[one.digest]
            for other in sorted(candidates[index].union(same)):
                if within and other <= index:
                    continue
                exact = second[other].digest == one.digest
                if exact or float(one.small @ second[other].small) >= NEAR_CORRELATION:
                    yield one.name, second[other].name, exact
