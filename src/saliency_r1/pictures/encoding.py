"""Write pictures: each is marked as this package's own, and written completely or not at all."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import putchunk

from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic, printable
from saliency_r1.pictures.own_files import SOFTWARE, exif_mark, png_mark
from saliency_r1.pictures.png import SIGNATURE

KINDS = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""The format of a picture, by the ending of the file's name."""

_JPEG_LONGEST = 65_500
_COLOUR_TYPES = {"L": 0, "RGB": 2, "RGBA": 6}
_AVERAGE = 3
_STRIP = 1 << 20  # bytes that are filtered at a time


def save_jpeg(picture: Image.Image, path: Path) -> Path:
    """Write a picture as JPEG, or as PNG with that ending if it is too long for JPEG.

    Returns:
        The path of the file.

    Raises:
        OutputError: if it cannot be written.
    """
    if max(picture.size) > _JPEG_LONGEST:
        return save_png(picture, path.with_suffix(".png"))
    with open_atomic(path) as file:
        picture.save(file, format="JPEG", quality=92, comment=SOFTWARE)
    return path


def save_png(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG, see `write_png`.

    Returns:
        The path of the file.

    Raises:
        OutputError: if it cannot be written.
    """
    with open_atomic(path) as file:
        write_png(picture, file)
    return path


def write_png(picture: Image.Image, file: BinaryIO) -> None:
    """Write a picture (mode L, RGB or RGBA) as PNG to an open file, compressed for speed.

    One filter is applied and the result is coded as run lengths, because little else repeats in a photo. PIL
    tries every filter on every row instead, which takes longer.
    """
    pixels = np.asarray(picture)
    rows = pixels.reshape(picture.height, -1)
    bytes_each = rows.shape[1] // picture.width
    file.write(SIGNATURE)
    header = struct.pack(">IIBBBBB", *picture.size, 8, _COLOUR_TYPES[picture.mode], 0, 0, 0)
    putchunk(file, b"IHDR", header)
    for kind, text, *_ in png_mark().chunks:
        putchunk(file, kind, text)
    packed = zlib.compressobj(1, strategy=zlib.Z_RLE)
    height = max(1, _STRIP // rows.shape[1])
    for top in range(0, len(rows), height):
        above = rows[top - 1 : top - 1 + height] if top else np.pad(rows[: height - 1], ((1, 0), (0, 0)))
        content = packed.compress(_averaged(rows[top : top + height], above, bytes_each))
        if content:
            putchunk(file, b"IDAT", content)
    putchunk(file, b"IDAT", packed.flush())
    putchunk(file, b"IEND", b"")


def _averaged(rows: np.ndarray, above: np.ndarray, bytes_each: int) -> bytes:
    """Apply PNG's filter Average: each byte without the mean of that to its left and that above it.

    Args:
        rows: bytes of some rows, uint8 (h, n).
        above: the same of the row above each.
        bytes_each: bytes of a pixel.
    """
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _AVERAGE
    values = filtered[:, 1:]
    # The mean of two bytes without a wider type.
    left, up = rows[:, :-bytes_each], above[: len(rows), bytes_each:]
    np.subtract(rows[:, bytes_each:], (left & up) + ((left ^ up) >> 1), out=values[:, bytes_each:])
    np.subtract(rows[:, :bytes_each], above[: len(rows), :bytes_each] >> 1, out=values[:, :bytes_each])
    return filtered.tobytes()


def check_ending(path: Path, *, opaque: bool) -> None:
    """Check that a picture can be written to a file with that name.

    Args:
        path: the file.
        opaque: whether the picture is without transparency.

    Raises:
        SaliencyError: if the ending is not known, or its format has no transparency and the picture has.
    """
    name, kind = printable(str(path)), KINDS.get(path.suffix.lower())
    if kind is None:
        raise SaliencyError(f"{name}: expected one of {', '.join(KINDS)} as ending, or / for a folder")
    if kind == "JPEG" and not opaque:
        raise SaliencyError(f"{name}: JPEG has no transparency; give a .png, or a --background")


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture in the format of the name's ending, see `check_ending`; WebP and TIFF without loss.

    Returns:
        The path of the file.

    Raises:
        OutputError: if it cannot be written.
    """
    kind = KINDS[path.suffix.lower()]
    if kind == "PNG":
        return save_png(picture, path)
    if kind == "JPEG":
        return save_jpeg(picture, path)
    with open_atomic(path) as file:
        if kind == "WEBP":
            picture.save(file, format=kind, lossless=True, quality=20, exif=exif_mark())
        else:
            picture.save(file, format=kind, compression="tiff_lzw", software=SOFTWARE)
    return path
