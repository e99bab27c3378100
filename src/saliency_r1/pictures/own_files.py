"""Recognise the pictures that this package wrote, by a mark in them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE = "saliency-r1"
"""The mark in the comment of JPEG files, and as `Software` in PNG, TIFF and (in EXIF) WebP files."""

_LOOKED_AT = 512


def png_mark() -> PngInfo:
    """Return what PIL writes into a PNG file so that `is_own` recognises it."""
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    return mark


def exif_mark() -> Image.Exif:
    """Return the same for formats with EXIF."""
    mark = Image.Exif()
    mark[ExifTags.Base.Software] = SOFTWARE
    return mark


def is_own(path: Path) -> bool:
    """Whether this package wrote a picture; False if it cannot be read."""
    if not path.is_file():  # reading a pipe would block
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
            if head.startswith((b"RIFF", b"II*\0", b"MM\0*")):  # WebP and TIFF have it at their ends
                file.seek(-min(_LOOKED_AT, file.seek(0, os.SEEK_END)), os.SEEK_END)
                return SOFTWARE.encode() + b"\0" in head + file.read()
    except OSError:
        return False
    name = SOFTWARE.encode()
    if head.startswith(b"\x89PNG"):
        return b"tEXtSoftware\0" + name in head
    return head.startswith(b"\xff\xd8") and b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name in head
