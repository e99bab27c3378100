"""Read PNG files as viewers do: without parts that only describe the picture, and as far as they go."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO, RawIOBase
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SHOWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""The chunks that make the picture. Of an animation these are its first frame."""

_EXIF, _PROFILE = b"eXIf", b"iCCP"
_CHUNK_BYTES = 1 << 20  # of a chunk that is read completely here; EXIF and palettes are far smaller
_PROFILE_BYTES = 16 << 20
_PIECE, _ZEROS = 4096, 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: where each pass begins, and its steps: x, y, dx, dy."""


@dataclass
class Essence:
    """The parts of a PNG file that make the picture.

    Attributes:
        file: reads as a PNG file of only these parts.
        profile: the ICC profile; None without one, or if it is broken or larger than 16 MB.
        left_out: the damaged parts that were left out.
    """

    file: BinaryIO
    profile: bytes | None = None
    left_out: list[str] = field(default_factory=list)


def essence(file: BinaryIO) -> Essence:
    """Return the parts of a PNG file that make the picture, without its descriptions.

    PIL refuses a picture with a long text, a large profile, or a wrong checksum of either; viewers show it.
    Only small chunks are read or copied.

    Args:
        file: file open for reading, at any position; the returned object reads from it.
    """
    parts: list[tuple[int, int]] = [(0, len(SIGNATURE))]
    found = Essence(file)
    for kind, start, length in _chunks(file):
        if kind in (_EXIF, b"tRNS"):
            if _intact(file, start, length):
                parts.append((start, length + 12))
            else:
                found.left_out.append("EXIF" if kind == _EXIF else "transparency")
        elif kind == _PROFILE:
            found.profile = _profile(file, start, length)
            if found.profile is None:
                found.left_out.append("colour profile")
        elif kind in _SHOWN or not kind[0] & 0x20:  # PIL refuses unknown parts that are critical
            parts.append((start, length + 12))
    found.file = _Parts(file, parts)  # type: ignore[assignment]
    return found


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, position and length of each chunk's content, up to the end of picture or file."""
    place = len(SIGNATURE)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, place, length
        if kind == b"IEND":
            return
        place += length + 12


def _intact(file: BinaryIO, start: int, length: int) -> bool:
    if length > _CHUNK_BYTES:
        return False
    file.seek(start + 4)
    content, checksum = file.read(length + 4), file.read(4)
    return len(checksum) == 4 and zlib.crc32(content) == int.from_bytes(checksum, "big")


def _profile(file: BinaryIO, start: int, length: int) -> bytes | None:
    """Return the profile in an iCCP chunk: a name, a zero, the method (0), and the compressed profile."""
    file.seek(start + 8)
    content = file.read(min(length, _PROFILE_BYTES))
    _, _, rest = content.partition(b"\0")
    if rest[:1] != b"\0":
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(rest[1:], _PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacking.eof else None


class _Parts(RawIOBase):
    """Parts of a file that read as one file, without a copy."""

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]) -> None:
        self._file = file
        self._parts = parts
        self._place = 0
        self._size = sum(length for _, length in parts)
        # Where the search for the current part begins: most reads continue where the last one ended.
        self._part = self._before = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._size if size is None or size < 0 else size
        if self._place < self._before:
            self._part = self._before = 0
        pieces = []
        while wanted > 0 and self._part < len(self._parts):
            start, length = self._parts[self._part]
            inner = self._place - self._before
            if inner >= length:
                self._before += length
                self._part += 1
                continue
            self._file.seek(start + inner)
            piece = self._file.read(min(wanted, length - inner))
            if not piece:
                break
            pieces.append(piece)
            self._place += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)


def completed(content: bytes) -> tuple[bytes, float] | None:
    """Fill up a PNG file whose pixels end too early with zeros; return it with the share that is there.

    Args:
        content: the file's content.

    Returns:
        A complete PNG file and the share in [0, 1]; None if its header is missing.
    """
    head = content[16:29]
    if len(head) < 13:
        return None
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    if colour not in _CHANNELS or not width or not height:
        return None
    size = _packed_bytes(width, height, bits * _CHANNELS[colour], bool(interlaced))
    file = BytesIO(content)
    before, packed = [SIGNATURE], []
    for kind, start, length in _chunks(file):
        if kind == b"IDAT":
            packed.append(content[start + 8 : start + 8 + length])
        elif kind in (*_SHOWN[:3], _EXIF, _PROFILE) and not packed:
            before.append(content[start : start + length + 12])
    packing, there = zlib.compressobj(1), 0
    body = []
    for piece in _unpacked(b"".join(packed), size):
        there += len(piece)
        body.append(packing.compress(piece))
    zeros = bytes(_ZEROS)
    for start in range(there, size, _ZEROS):
        body.append(packing.compress(zeros[: size - start]))
    body.append(packing.flush())
    whole = [*before, _chunk(b"IDAT", b"".join(body)), _chunk(b"IEND", b"")]
    return b"".join(whole), there / size


def _packed_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Return the number of bytes of the pixels before compression: a filter byte and whole bytes a row."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _unpacked(packed: bytes, most: int) -> Iterator[bytes]:
    """Yield what can be unpacked before the stream ends or breaks, in pieces."""
    unpacking = zlib.decompressobj()
    for start in range(0, len(packed), _PIECE):
        waiting = packed[start : start + _PIECE]
        while waiting and most > 0:
            try:
                piece = unpacking.decompress(waiting, min(most, _ZEROS))
            except zlib.error:
                return
            most -= len(piece)
            waiting = unpacking.unconsumed_tail
            yield piece


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
