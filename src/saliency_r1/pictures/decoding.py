"""Decode picture files within a limit, and explain why others cannot be decoded."""

from __future__ import annotations

import os
import struct
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

from saliency_r1.errors import ImageError, ImageSizeError, one_line
from saliency_r1.pictures import jpeg, png, tiff

# Formats that are decoded in this process and have their size in the header. EPS would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_MISSING = "needs pillow-heif: pip install 'saliency-r1[heif]'"

# Files that are often mistaken for pictures: how they begin, what they are, what to do.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer", "run `git annex get`"),
    (b"<svg", "an SVG drawing", "export it as PNG"),
    (b"%PDF", "a PDF document", "export its pages as PNG"),
    (b"%!PS", "a PostScript document", "export it as PNG"),
    (b"8BPS", "a Photoshop document", "export it as PNG or TIFF"),
    (b"\xff\x0a", "a JPEG XL picture", "convert it to PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", "convert it to PNG or JPEG"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file", "develop it to TIFF or JPEG"),
    (b"PK\3\4", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"Rar!", "a rar archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\x89HDF", "an HDF5 file", "export its picture as PNG"),
    (b"\x93NUMPY", "a NumPy array", "load it with numpy and give the array"),
    (b"\x1aE\xdf\xa3", "a video", "export a frame of it"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_LOOKED_AT = 512

# How files of these formats begin. BMP and PPM begin with two letters, like many other files.
_BEGINNINGS = (b"\xff\xd8\xff", png.SIGNATURE, b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BOXES = (b"ftypavif", *(b"ftyp" + brand for brand in _HEIF_BRANDS))

_PLAIN = {"JPEG": jpeg.without_descriptions, "TIFF": tiff.without_descriptions}

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_FILLER = bytes(range(1, 128)) * 32
_STRIP = 256


def identify(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Open the picture in a file: read its header, but do not decode it.

    `Image.open` does this too, but always warns of a decompression bomb at 89 megapixels, and neither its
    limit nor the warning can be set for one call.

    Args:
        file: open for reading, at its beginning.
        name: its name in errors.

    Raises:
        ImageError: if its content has no known format; the message says what it is.
    """
    head = file.read(_LOOKED_AT)
    reason = ""
    Image.preinit()
    if not head.startswith((png.SIGNATURE, _JPEG)):
        Image.init()  # many formats, whose libraries take longer to load than a JPEG takes to read
    if head.startswith(png.SIGNATURE):
        return _identify_png(file, name)
    if is_heif(head):
        return _identify_heif(file, name)
    for kind in _FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        try:
            accepted = accept is None or accept(head[:16])
            if isinstance(accepted, str):  # the format is known, but this PIL was built without it
                reason = accepted
            elif accepted:
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as error:
            if kind in _PLAIN and (plain := _without_descriptions(file, kind)) is not None:
                return identify(plain, name)
            reason = f"broken {kind} ({one_line(error)})"
            if str(error) == "unknown pixel mode":
                reason = f"{kind} with pixels of a kind that is not read, save it with 8 or 16 bits a channel"
        except Exception as error:
            raise ImageError(f"{name}: broken {kind} ({one_line(error)}{_bytes_there(file)})") from error
    raise ImageError(f"{name}: not a picture ({reason or content_of(head)})")


def decode(file: BinaryIO, name: str, *, max_pixels: int, accept_truncated: bool = False) -> Image.Image:
    """Decode the first picture in a file, without rotation and conversion.

    A JPEG that lacks only its end marker is read with a warning. Other files that end too early raise an
    error that says how much is there; with `accept_truncated` it is a warning, and the missing part is grey
    or black.

    Args:
        file: open for reading, at its beginning.
        name: its name in errors.
        max_pixels: maximum number of pixels; larger pictures are refused after reading the header.
        accept_truncated: whether to read JPEG, PNG, BMP and PPM that end too early as far as they go.

    Returns:
        PIL image of any mode; its `info` may hold an `icc_profile`.

    Raises:
        ImageError: if it cannot be read.
        ImageSizeError: if it has more pixels than the limit.
    """
    image = identify(file, name)
    check_size(image.width, image.height, name, max_pixels)
    try:
        image.load()
    except Exception as error:  # a decoder may raise anything on a broken file
        return _as_far_as_it_reaches(file, name, image, error, accept_truncated)
    return image


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse a picture without pixels or with too many.

    Raises:
        ImageError: if it has no pixels.
        ImageSizeError: if it has more than `max_pixels`.
    """
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {width}x{height} pixels, there is nothing to see")
    if width * height > max_pixels:
        size, limit = f"{width * height / 1e6:.1f}", f"{max_pixels / 1e6:g}"
        raise ImageSizeError(f"{name}: {width}x{height} pixels are {size} megapixels, the limit is {limit}")


def content_of(head: bytes) -> str:
    """Say what a file is that is not a picture, and what to do.

    Args:
        head: its first bytes, 512 or all.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<svg" in text:
        return "the content is an SVG drawing: export it as PNG"
    for begin, what, todo in _OTHERS:
        if head.startswith(begin) or text.startswith(begin):
            return f"the content is {what}: {todo}"
    if text.lower().startswith(_HTML):
        return "the content is a web page, as of a failed download: get the picture itself"
    if head[4:8] == b"ftyp":
        return "the content is a video or of another kind of its family: export a frame as JPEG or PNG"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return "the content is a video or a sound: export a frame as JPEG or PNG"
    if not head.strip(b"\0"):
        return "the content is zeros, as of a download that did not finish: get it again"
    if _is_text(head):
        return "the content is text"
    return "the content is of no picture format known here"


def is_heif(head: bytes) -> bool:
    """Whether a file with this beginning is HEIC or HEIF."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[8:48]


def can_read_heif() -> bool:
    """Whether pillow-heif is installed."""
    return heif_opener() is not None


def is_picture(path: Path) -> bool:
    """Whether a file begins like one of a supported format; False if it cannot be read."""
    if not path.is_file():  # reading a pipe would block
        return False
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(_BEGINNINGS) or head[4:12] in _BOXES


@cache
def heif_opener() -> Any:
    """Return the class of pillow-heif that opens HEIC and HEIF; None if it is not installed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile


def _without_descriptions(file: BinaryIO, kind: str) -> BinaryIO | None:
    """Remove what only describes the picture from the file, if there is any."""
    file.seek(0)
    plain = _PLAIN[kind](file.read())
    return BytesIO(plain) if plain is not None else None


def _identify_png(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8).ljust(8, b"\xff"))
    if not width or not height:
        check_size(width, height, name, 0)
    shown = png.essence(file)
    shown.file.seek(0)
    factory, _ = Image.OPEN["PNG"]
    try:
        image = factory(shown.file, "")
    except Exception as error:
        raise ImageError(f"{name}: not a picture (broken PNG ({one_line(error)}))") from error
    if shown.profile is not None:
        image.info["icc_profile"] = shown.profile
    if shown.left_out:
        parts = " and ".join(shown.left_out)
        warnings.warn(f"{name}: its {parts} cannot be read and is left out", stacklevel=2)
    return image


def _identify_heif(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    opener = heif_opener()
    if opener is None:
        raise ImageError(f"{name}: HEIC {HEIF_MISSING}")
    file.seek(0)
    try:
        return opener(file, "")
    except Exception as error:
        raise ImageError(f"{name}: not a picture (broken HEIC ({one_line(error)}))") from error


def _as_far_as_it_reaches(
    file: BinaryIO, name: str, image: ImageFile.ImageFile, error: Exception, accept_truncated: bool
) -> Image.Image:
    file.seek(0)
    content = file.read()
    try:
        if image.format in ("JPEG", "MPO"):
            found = _rest_of_jpeg(content, name) if "truncated" in str(error) else None
        elif image.format == "PNG":
            found = _rest_of_png(content, name)
        elif image.format in ("BMP", "PPM") and [part[0] for part in image.tile] == ["raw"]:
            found = _rest_of_rows(content, image, name)
        else:
            found = None
    except Exception:
        found = None
    if found is None:
        raise ImageError(f"{name}: cannot be decoded ({one_line(error)}{_bytes_there(file)})") from error
    picture, share = found
    there = f"{min(share, 0.99):.0%} of the picture is there"
    if share < 1.0 and not accept_truncated:
        raise ImageError(
            f"{name}: cut short, {there}; get the whole file, or accept what is there with "
            "--accept-truncated (in Python accept_truncated=True)"
        ) from error
    try:
        picture.load()
    except Exception:
        raise ImageError(f"{name}: cannot be decoded ({one_line(error)})") from error
    what = f"cut short, {there}" if share < 1.0 else "the mark of its end is missing, the picture is whole"
    warnings.warn(f"{name}: {what}", stacklevel=2)
    return picture


def _rest_of_jpeg(content: bytes, name: str) -> tuple[ImageFile.ImageFile, float]:
    """Decode a JPEG that ends too early; return it, ended properly, with the share of its rows that exist.

    Where data are missing the decoder continues with what follows, so the rows that depend on it show how far
    the data reach.
    """
    content = content.rstrip(b"\xff")
    ended = identify(BytesIO(content + _JPEG_END), name)
    ended.load()
    filled = identify(BytesIO(content + _FILLER + _JPEG_END), name)
    filled.load()
    for top in range(0, ended.height, _STRIP):
        box = (0, top, ended.width, min(top + _STRIP, ended.height))
        differ = np.asarray(ended.crop(box)) != np.asarray(filled.crop(box))
        rows = np.flatnonzero(differ.reshape(len(differ), -1).any(axis=1))
        if len(rows):
            return ended, (top + int(rows[0])) / ended.height
    return ended, 1.0


def _rest_of_png(content: bytes, name: str) -> tuple[ImageFile.ImageFile, float] | None:
    found = png.completed(content)
    if found is None:
        return None
    whole, share = found
    return identify(BytesIO(whole), name), min(share, 0.99)


def _rest_of_rows(content: bytes, image: ImageFile.ImageFile, name: str) -> tuple[ImageFile.ImageFile, float]:
    """Return a file of plain rows of pixels, with zeros after its end."""
    size = image.width * image.height * len(image.getbands()) * (4 if image.mode in ("I", "F") else 1)
    return identify(_EndlessFile(content), name), min(len(content) / size, 0.99)


class _EndlessFile(BytesIO):
    """The content of a file, followed by zeros."""

    def read(self, size: int | None = -1) -> bytes:
        there = super().read(size)
        return there if size is None or size < 0 else there.ljust(size, b"\0")


def _bytes_there(file: BinaryIO) -> str:
    """Return how much of a file is there, if its header gives the length."""
    file.seek(0)
    head = file.read(8)
    there = file.seek(0, os.SEEK_END)
    whole = int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"RIFF" and len(head) == 8 and there < whole:
        return f"; {there:,} of {whole:,} bytes are there, get the whole file"
    return ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) - error.start > 3:
            return False
        text = head[: error.start].decode()
    return all(sign.isprintable() or sign.isspace() for sign in text)
