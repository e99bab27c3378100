"""Read ground truth masks and saliency maps of any mode as 8-bit grey, with the reader of photos."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from saliency_r1.errors import ImageError, one_line
from saliency_r1.files import printable
from saliency_r1.masks import THRESHOLD
from saliency_r1.pictures.decoding import decode, identify
from saliency_r1.pictures.depth import to_bytes

ARRAY_SUFFIX = ".npy"
"""The ending of saliency maps saved by numpy."""

_MAX_PIXELS = 100_000_000
_GREY_SPREAD, _LEAST_COLOURED = 48, 0.001
_LEAST_SHARE = 0.01


class MaskValues(StrEnum):
    """The values of a mask's pixels that mean the object."""

    GREY = "grey"
    NONZERO = "nonzero"
    ALPHA = "alpha"


class Doubt(StrEnum):
    """The reason why the grey values of a mask may not be the object."""

    LOW = "low"
    COLOURS = "colours"
    ALPHA = "alpha"


@dataclass(frozen=True)
class MaskPicture:
    """A mask or saliency map that was read.

    Attributes:
        grey: uint8 (H, W), the luminance.
        nonzero: bool (H, W): where the stored value (in palettes the index) is not 0.
        alpha: uint8 (H, W); None without one, or if it is the same everywhere.
        high: the largest stored value.
        coloured: whether it has colours that are not grey, beyond JPEG's noise.
    """

    grey: np.ndarray
    nonzero: np.ndarray
    alpha: np.ndarray | None
    high: float
    coloured: bool

    def values(self, kind: MaskValues, name: str) -> np.ndarray:
        """Return the values that count, uint8 (H, W).

        Raises:
            ImageError: if alpha is needed, and there is none.
        """
        if kind is MaskValues.NONZERO:
            return self.nonzero.astype(np.uint8) * np.uint8(255)
        if kind is MaskValues.ALPHA:
            if self.alpha is None:
                raise ImageError(f"{name}: has no alpha that tells an object; read it as grey or nonzero")
            return self.alpha
        return self.grey

    @property
    def doubt(self) -> Doubt | None:
        """The reason why `grey` may not be the object; None if there is none."""
        inside = self.grey > THRESHOLD
        if self.alpha is not None and ((self.alpha > THRESHOLD) != inside).mean() > _LEAST_SHARE:
            return Doubt.ALPHA
        if self.coloured and (self.nonzero != inside).any():
            return Doubt.COLOURS
        if self.nonzero.any() and not inside.any():
            return Doubt.LOW
        return None

    @property
    def is_zero_and_one(self) -> bool:
        """Whether its stored values are only 0 and 1 in a format where 255 is white."""
        return self.high == 1 and not (self.grey > THRESHOLD).any()


def load_mask(
    source: str | Path | bytes, name: str = "mask", values: MaskValues = MaskValues.GREY
) -> np.ndarray:
    """Read a ground truth mask as bool (H, W): above 127.

    The arguments and errors are those of `load_grey`.
    """
    return load_grey(source, name, values) > THRESHOLD


def load_grey(
    source: str | Path | bytes, name: str = "picture", values: MaskValues = MaskValues.GREY
) -> np.ndarray:
    """Read a mask or saliency map as uint8 (H, W), at its own size.

    It is decoded as photos are, see `saliency_r1.images.load_image`: grey of more than 8 bits and floats are
    scaled by the same rule. Colours and palettes become luminance (ITU-R 601), as in OpenCV. Alpha is
    ignored. EXIF and colour profiles are not applied, because a mask is data. `.npy` files hold (H, W), (H,
    W, 1) or (1, H, W).

    Args:
        source: path or content of a picture file, or of a file saved by numpy.
        name: its name in errors.
        values: which values mean the object instead of the luminance, see `MaskPicture`.

    Raises:
        ImageError: if it cannot be read; one line that names the file and the reason.
    """
    if not isinstance(source, bytes):
        name = printable(str(source))
    return read_mask(source, name).values(values, name)


def read_mask(source: str | Path | bytes, name: str = "picture") -> MaskPicture:
    """Read a mask or saliency map with all channels that may show the object; see `load_grey`."""
    file: BinaryIO
    if isinstance(source, bytes):
        file = BytesIO(source)
    else:
        name = printable(str(source))
        file = _open(Path(source), name)
    try:
        with file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                return _of_array(np.load(file, allow_pickle=False), name)
            file.seek(0)
            return _of_picture(decode(file, name, max_pixels=_MAX_PIXELS), name)
    except Exception as error:  # a decoder may raise anything on a broken file
        reason = one_line(error).removeprefix(f"{name}: ")
        raise ImageError(f"{name}: cannot be read as a mask ({reason})") from error


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({one_line(error)})") from error


def _of_array(array: np.ndarray, name: str) -> MaskPicture:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim != 2 or not array.size:
        raise ImageError(f"{name}: shape {array.shape}, expected (H, W)")
    return MaskPicture(
        to_bytes(array, name, stretch=True), array != 0, None, float(array.max()), coloured=False
    )


def _of_picture(image: Image.Image, name: str) -> MaskPicture:
    stored = np.asarray(image)
    alpha = None
    clear = image.mode == "P" and "transparency" in image.info
    if clear or {"A", "a"} & {*image.getbands()}:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    if alpha is not None and alpha.min(initial=255) == alpha.max(initial=0):
        alpha = None
    coloured = image.mode not in _GREYS and _is_coloured(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = to_bytes(stored, name, stretch=True)
    elif image.mode == "1":
        grey = stored.astype(np.uint8) * np.uint8(255)
    elif image.mode == "L":
        grey = np.array(stored)
    else:
        opaque = image.convert("RGBA").convert("RGB") if image.mode in _CLEAR else image
        grey = np.array(opaque.convert("L"))
    told = stored if stored.ndim == 2 else stored[:, :, : 1 if image.mode in ("LA", "La", "PA") else 3]
    nonzero = told != 0 if told.ndim == 2 else (told != 0).any(axis=2)
    high = 255.0 if stored.dtype == bool else float(told.max(initial=0))
    return MaskPicture(grey, nonzero, alpha, high, coloured)


_CLEAR = ("P", "PA", "RGBA", "LA", "La", "RGBa")
_GREYS = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def _is_coloured(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("RGB"))
    return bool((np.ptp(pixels, axis=2) > _GREY_SPREAD).mean() > _LEAST_COLOURED)


def picture_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture or `.npy` file from its header.

    Raises:
        ImageError: if there is no such file or no such header.
    """
    name = printable(str(path))
    with _open(path, name) as file:
        try:
            if file.read(6) == b"\x93NUMPY":
                shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
                if len(shape) == 3:
                    shape = shape[1:] if shape[0] == 1 else shape[:2]
                return int(shape[0]), int(shape[1])
            file.seek(0)
            image = identify(file, name)
            return image.height, image.width
        except Exception as error:
            reason = one_line(error).removeprefix(f"{name}: ")
            raise ImageError(f"{name}: cannot be read ({reason})") from error
