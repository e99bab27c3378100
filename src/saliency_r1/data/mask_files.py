"""Reading ground truth masks and saliency maps as the field does: as 8-bit grey, of any mode."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.errors import ImageError, one_line
from saliency_r1.masks import THRESHOLD


def load_mask(source: str | Path | bytes, name: str = "mask") -> np.ndarray:
    """A ground truth mask as bool (H, W): grey above 127.

    Arguments and errors as of `load_grey`.
    """
    return load_grey(source, name) > THRESHOLD


def load_grey(source: str | Path | bytes, name: str = "picture") -> np.ndarray:
    """A mask or saliency map as uint8 (H, W), at its own size.

    Of modes 1, L, P and RGB the luminance (ITU-R 601) is taken, as OpenCV does; alpha is dropped; 16-bit grey
    is scaled by 65535. EXIF is not applied: a mask is data.

    Args:
        source: path or content of a picture file.
        name: what errors call the content.

    Raises:
        ImageError: if it cannot be read; one line that names the file and the reason.
    """
    file: BytesIO | Path
    if isinstance(source, bytes):
        file = BytesIO(source)
    else:
        file, name = Path(source), str(source)
    try:
        with Image.open(file) as image:
            image.load()
            return grey(image)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except Exception as error:  # a decoder may raise anything on a broken file
        reason = one_line(error)
        raise ImageError(f"{name}: cannot be read as a mask ({reason})") from error


def grey(image: Image.Image) -> np.ndarray:
    """The grey values of a PIL image as uint8 (H, W); see `load_grey`."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.max(initial=0) > 255:
            return np.rint(values.clip(0, 65535) / 257).astype(np.uint8)
        return values.clip(0, 255).astype(np.uint8)
    if image.mode in ("P", "PA", "RGBA", "LA", "La", "RGBa"):
        image = image.convert("RGBA").convert("RGB")
    return np.array(image if image.mode == "L" else image.convert("L"))


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width from the header alone.

    Raises:
        ImageError: if there is no such file or no such header.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:
        reason = one_line(error)
        raise ImageError(f"{path}: cannot be read ({reason})") from error
