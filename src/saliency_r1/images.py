"""Reading pictures safely: any source, any mode, upright, within a limit, with errors that name the file."""

from __future__ import annotations

import glob
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from saliency_r1.errors import ImageError, ImageSizeError, one_line

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The endings, in lower case, by which pictures are found in folders and globs."""

# Formats that decode in this process from a header that says the size. EPS, for one, would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")
_BIT_DEPTHS = (8, 10, 12, 14, 16)
_ROWS = 256
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | Path | bytes | Image.Image | np.ndarray, *, max_pixels: int = 100_000_000
) -> Image.Image:
    """Read a picture as upright RGB.

    - EXIF rotation is applied. Of an animation the first frame is taken, of a PIL image the current one.
    - What is transparent lies on white. Palette, CMYK and grey pictures become RGB.
    - Grey of more than 8 bits (PIL modes `I;16`, `I`; arrays of integers) is scaled by the smallest depth of
      8, 10, 12, 14 and 16 bits that holds its largest value, so that 12-bit data in a 16-bit file is not
      black.
    - Floats (PIL mode `F`, arrays) count as 0 to 1 if they lie there, else as 0 to 255. A file's 32-bit
      values outside all of these ranges (heights, temperatures) are stretched from their least to their
      largest.
    - Arrays are (H, W), (H, W, 1), (H, W, 3) in RGB order or (H, W, 4) with alpha last.

    Memory: the result holds 4 bytes a pixel. On the way there are 4 to 9, JPEG, PNG and TIFF of 100
    megapixels stay below 1 GB; the decoders of WebP and AVIF take up to 16. Larger pictures than `max_pixels`
    are refused from their header, before anything is decoded. PIL's global settings and the warning filters
    are left alone.

    Args:
        source: path, file content, PIL image (never changed) or array.
        max_pixels: the most pixels allowed.

    Returns:
        Image of mode RGB at the picture's own size, as it is to be looked at (width and height swapped where
        EXIF says so). It is `source` itself if that is an upright RGB image already.

    Raises:
        ImageError: if it cannot be read; one line that names the file and the reason.
    """
    if isinstance(source, (str, Path)):
        name = _printable(str(source))
        if not str(source):
            raise ImageError("'': no such file")
        file = _open_file(Path(source), name)
        with file:
            return _decode(file, name, max_pixels)
    if isinstance(source, bytes):
        if not source:
            raise ImageError("bytes: empty")
        return _decode(BytesIO(source), "bytes", max_pixels)
    if isinstance(source, Image.Image):
        return _upright_rgb(source, _printable(str(getattr(source, "filename", "") or "image")), max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    raise ImageError(
        f"{type(source).__name__}: not a picture; give a path, bytes, a PIL image or a numpy array"
    )


def check_header(file: BinaryIO, name: str, *, max_pixels: int) -> None:
    """See from its header alone that a file is a picture, and within the limit. Nothing is decoded.

    Args:
        file: open for reading, at its beginning, where it is left again.
        name: what errors call it.
        max_pixels: the most pixels allowed.

    Raises:
        ImageError: if its content is of no format that `load_image` reads.
        ImageSizeError: if it has more pixels than the limit.
    """
    name = _printable(name)
    width, height = _identify(file, name).size
    file.seek(0)
    _check_size(width, height, name, max_pixels)


@dataclass(frozen=True)
class FoundImage:
    """A picture to read and the name its outputs get.

    Attributes:
        path: the file.
        stem: relative path without suffix, with `/` between folders; no two of one `find_images` call are
            equal, in upper or lower case.
    """

    path: Path
    stem: str


def find_images(inputs: Sequence[str | Path]) -> list[FoundImage | ImageError]:
    """Find the pictures that files, folders and globs name.

    A file is taken whatever it is called. A folder gives all pictures in it and below, sorted, those with an
    ending in `IMAGE_SUFFIXES`; a glob (`holiday/**/*.jpg`) likewise, and the folders it matches are searched.
    Hidden files and folders are left out. A name that exists is never read as a glob. A file reached twice is
    listed once.

    The stem of a file is its name; below a folder or glob it keeps the path from there. Where stems would be
    equal (`a/dog.jpg b/dog.jpg`) the first keeps its own and the others get `-2`, `-3`, … in the order given.

    Args:
        inputs: paths and globs.

    Returns:
        In the order given, for each picture a `FoundImage`, and for each input that gives none an
        `ImageError` (not raised, so that the other pictures can still be done).
    """
    found: list[tuple[Path, str] | ImageError] = []
    seen: set[tuple[str, str]] = set()
    for given in inputs:
        for item in _expand(given):
            if isinstance(item, ImageError):
                found.append(item)
                continue
            # The link's own name counts: links of two names to one file are two pictures.
            key = (os.path.realpath(item[0].parent), item[0].name)
            if key not in seen:
                seen.add(key)
                found.append(item)

    wanted = Counter(item[1].casefold() for item in found if not isinstance(item, ImageError))
    taken: set[str] = set()
    result: list[FoundImage | ImageError] = []
    for item in found:
        if isinstance(item, ImageError):
            result.append(item)
            continue
        path, stem = item
        number = 1
        unique = stem
        while unique.casefold() in taken or (number > 1 and unique.casefold() in wanted):
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        result.append(FoundImage(path, unique))
    return result


def _expand(given: str | Path) -> Iterator[tuple[Path, str] | ImageError]:
    """The pictures of one input, each with the stem it would have if it were alone."""
    text, path = str(given), Path(given)
    name = _printable(text)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        yield ImageError(f"{name}: cannot be opened ({one_line(error)})")
        return
    if text and is_folder:
        nothing = True
        for item in _walk(path, path):
            nothing = False
            yield item
        if nothing:
            yield ImageError(f"{name}: no pictures in this folder")
    elif text and exists:
        yield path, path.stem
    elif _is_glob(text):
        nothing = True
        base = _glob_base(path)
        for match in sorted(map(Path, glob.glob(text, recursive=True))):  # noqa: PTH207
            for item in _walk(match, base) if match.is_dir() else _picture(match, base):
                nothing = False
                yield item
        if nothing:
            yield ImageError(f"{name}: no picture matches")
    else:
        yield ImageError(f"{name or repr('')}: no such file or folder")


def _walk(folder: Path, base: Path) -> Iterator[tuple[Path, str] | ImageError]:
    failures: list[OSError] = []
    visited = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, onerror=failures.append, followlinks=True):
        for failure in failures:
            yield ImageError(f"{_printable(str(failure.filename))}: {failure.strerror}")
        failures.clear()
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(Path(root, name))
            if not name.startswith(".") and real not in visited:  # a link may lead back up
                visited.add(real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            yield from _picture(Path(root, name), base)
    for failure in failures:
        yield ImageError(f"{_printable(str(failure.filename))}: {failure.strerror}")


def _picture(path: Path, base: Path) -> Iterator[tuple[Path, str]]:
    """The file with its stem from `base` on, if its name is a picture's."""
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
        return
    relative = Path(os.path.relpath(path, base))
    if ".." in relative.parts:
        relative = Path(path.name)
    yield path, relative.with_name(path.stem).as_posix()


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _glob_base(pattern: Path) -> Path:
    """The folders in front of the first wildcard."""
    plain: list[str] = []
    for part in pattern.parts[:-1]:
        if _is_glob(part):
            break
        plain.append(part)
    return Path(*plain)


def _open_file(path: Path, name: str) -> BinaryIO:
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, expected a picture file")
        if path.exists() and not path.is_file():
            raise ImageError(f"{name}: is not a regular file")
        file = path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be opened ({one_line(error)})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(f"{name}: the file is empty")
    return file


def _decode(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    return _upright_rgb(_identify(file, name), name, max_pixels)


def _identify(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """The picture in a file, header read, not decoded.

    `Image.open` does this too, but warns of a decompression bomb at 89 megapixels whatever our own limit is,
    and neither its limit nor the warning can be set for one call.
    """
    Image.init()
    prefix = file.read(16)
    reason = "the content is of no picture format known here"
    for kind in _FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        try:
            accepted = accept is None or accept(prefix)
            if isinstance(accepted, str):  # the format is known, but this PIL was built without it
                reason = accepted
            elif accepted:
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as error:
            reason = f"broken {kind} ({one_line(error)})"
        except Exception as error:
            raise ImageError(f"{name}: broken {kind} ({one_line(error)})") from error
    raise ImageError(f"{name}: not a picture ({reason})")


def _upright_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image.width, image.height, name, max_pixels)
    try:
        image.load()
        orientation = _orientation(image, name)
        upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        result = _rgb(upright, name)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything on a broken file
        raise ImageError(f"{name}: cannot be decoded ({one_line(error)})") from error
    if result is not image:
        result.info.clear()  # it may carry the EXIF rotation that has been applied
    return result


def _orientation(image: Image.Image, name: str) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:
        warnings.warn(f"{name}: EXIF cannot be read, taken as upright ({one_line(error)})", stacklevel=2)
        return 1


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _to_bytes(np.asarray(image), name, stretch=True)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        result = Image.new("RGB", image.size, "white")
        result.paste(layer, mask=layer.getchannel("A"))
        return result
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    shape = "x".join(map(str, array.shape))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"array: shape ({shape}), expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0], "array", max_pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return _rgb(Image.fromarray(np.ascontiguousarray(_to_bytes(array, "array", stretch=False))), "array")


def _to_bytes(values: np.ndarray, name: str, *, stretch: bool) -> np.ndarray:
    """Pixel values as uint8, scaled as `load_image` says; `stretch` allows values out of the known ranges."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name}: dtype {values.dtype}, expected bool, integers or floats")
    low, high = values.min().item(), values.max().item()
    if not np.isfinite(low + high):
        raise ImageError(f"{name}: holds NaN or infinity, expected finite values")
    kind = values.dtype.kind
    # The slack of a hundredth is for resampling, which overshoots a little.
    if kind == "b" or (kind == "f" and low >= -0.01 and high <= 1.01):
        black, white = 0.0, 1.0
    elif kind == "f" and low >= -0.01 * high and high <= 257.0:
        black, white = 0.0, 255.0
    elif kind in "ui" and low >= 0 and high < 1 << _BIT_DEPTHS[-1]:
        black, white = 0.0, float(next((1 << bits) - 1 for bits in _BIT_DEPTHS if high < 1 << bits))
    elif stretch:
        black, white = float(low), float(max(high, low + 1))
    else:
        raise ImageError(
            f"{name}: values from {low:g} to {high:g}, expected 0 to 1 (floats), 0 to 255 or 0 to 65535"
        )
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # in strips, for the sake of memory
        strip = (values[top : top + _ROWS].astype(np.float64) - black) * (255.0 / (white - black))
        result[top : top + _ROWS] = np.rint(strip).clip(0, 255)
    return result


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {width}x{height} pixels, there is nothing to see")
    if width * height > max_pixels:
        size, limit = f"{width * height / 1e6:.1f}", f"{max_pixels / 1e6:g}"
        raise ImageSizeError(f"{name}: {width}x{height} pixels are {size} megapixels, the limit is {limit}")


def _printable(name: str) -> str:
    """The name on one line, even if it has a line break in it."""
    return name if name.isprintable() else repr(name)
