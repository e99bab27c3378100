"""Telling the pictures that this package wrote from those that people give it: each is marked as its own."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE = "saliency-r1"
"""Stands in the comment of JPEG files, and as `Software` in PNG, TIFF and, within their EXIF, WebP files."""

_LOOKED_AT = 512


def png_mark() -> PngInfo:
    """Give what PIL writes into a PNG file so that `is_own` knows it."""
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    return mark


def exif_mark() -> Image.Exif:
    """Give the same for formats that hold EXIF."""
    mark = Image.Exif()
    mark[ExifTags.Base.Software] = SOFTWARE
    return mark


def is_own(path: Path) -> bool:
    """Whether a picture is one that this package wrote; False for what cannot be read."""
    if not path.is_file():  # reading a pipe would wait
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
            if head.startswith((b"RIFF", b"II*\0", b"MM\0*")):  # WebP and TIFF tell it at their ends
                file.seek(-min(_LOOKED_AT, file.seek(0, os.SEEK_END)), os.SEEK_END)
                return SOFTWARE.encode() + b"\0" in head + file.read()
    except OSError:
        return False
    name = SOFTWARE.encode()
    if head.startswith(b"\x89PNG"):
        return b"tEXtSoftware\0" + name in head
    return head.startswith(b"\xff\xd8") and b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name in head
