"""Write pictures: each is marked as this package's own, and written completely or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import putchunk

from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic, printable
from saliency_r1.pictures.own_files import SOFTWARE, exif_mark, png_mark

KINDS = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""The format of a picture, by the ending of the file's name."""

_JPEG_LONGEST = 65_500
_HEADER = 33  # bytes of PNG's signature and its first chunk, IHDR


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
    """Write a picture as PNG to an open file, compressed for speed.

    One filter is applied and the result is coded as run lengths, because little else repeats in a photo.
    OpenCV takes half the time of PIL, which tries every filter on every row.
    """
    import cv2

    pixels = np.asarray(picture)
    order = {"RGB": cv2.COLOR_RGB2BGR, "RGBA": cv2.COLOR_RGBA2BGRA}.get(picture.mode)
    if order is not None:
        pixels = cv2.cvtColor(pixels, order)
    options = {
        cv2.IMWRITE_PNG_COMPRESSION: 1,
        cv2.IMWRITE_PNG_STRATEGY: cv2.IMWRITE_PNG_STRATEGY_RLE,
        cv2.IMWRITE_PNG_FILTER: cv2.IMWRITE_PNG_FILTER_AVG,
    }
    done, content = cv2.imencode(".png", pixels, [number for pair in options.items() for number in pair])
    if not done:
        raise ValueError(f"a picture of {picture.width}x{picture.height} pixels cannot be encoded as PNG")
    file.write(content[:_HEADER].tobytes())
    for kind, text, *_ in png_mark().chunks:
        putchunk(file, kind, text)
    file.write(content[_HEADER:].tobytes())


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
