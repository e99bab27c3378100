"""Read TIFF files as viewers do: without damaged parts that only describe the picture."""

from __future__ import annotations

import struct

_DESCRIPTIVE = frozenset(
    {269, 270, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 33723, 34377, 34665, 34853, 37510, 37724}
    | {40091, 40092, 40093, 40094, 40095, 42112, 42113, 50341, 65000}
)
"""Tags of names, dates, places and comments (TIFF 6.0, EXIF, XMP, IPTC, Photoshop, Windows, GDAL)."""

_BYTE, _IGNORED = 1, 65_535


def without_descriptions(content: bytes) -> bytes | None:
    """Return a TIFF file whose first page has no descriptions; None if it has none, or is of another kind.

    PIL stops in the list of tags at one that leads outside the file, and then misses those that define the
    pixels.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None or len(content) < 8:
        return None
    (start,) = struct.unpack(f"{order}I", content[4:8])
    if start + 2 > len(content):
        return None
    (count,) = struct.unpack(f"{order}H", content[start : start + 2])
    patched, found = bytearray(content), False
    for place in range(start + 2, min(start + 2 + 12 * count, len(content) - 11), 12):
        (tag,) = struct.unpack(f"{order}H", content[place : place + 2])
        if tag in _DESCRIPTIVE:
            patched[place : place + 12] = struct.pack(f"{order}HHII", _IGNORED, _BYTE, 1, 0)
            found = True
    return bytes(patched) if found else None
