"""Read pictures safely: any source and mode, upright, within a limit, with errors that name the file."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeGuard

import numpy as np
from PIL import ExifTags, Image

from saliency_r1.errors import ImageError, one_line
from saliency_r1.files import printable
from saliency_r1.morphology import grown
from saliency_r1.pictures.colour import to_srgb
from saliency_r1.pictures.decoding import check_size, decode, identify
from saliency_r1.pictures.depth import to_bytes

if TYPE_CHECKING:
    from torch import Tensor

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_GROUNDS = ((255, 255, 255), (0, 0, 0), (128, 128, 128))
_NEAR, _FEW = 110.0, 0.2  # how near a colour is to a ground, in RGB, and how many pixels may be so
_LOOKED_AT, _BESIDE = 256, 4


@dataclass(frozen=True)
class LoadedImage:
    """A picture that was read.

    Attributes:
        image: RGB, as models see it.
        layer: RGBA of the same size, with transparency; None if the picture is fully opaque.
    """

    image: Image.Image
    layer: Image.Image | None = None

    @property
    def invisible(self) -> bool:
        """Whether it is fully transparent."""
        return self.layer is not None and self.layer.getchannel("A").getextrema()[1] == 0


def load_image(
    source: str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor,
    *,
    max_pixels: int = 100_000_000,
    accept_truncated: bool = False,
) -> Image.Image:
    """Read a picture as upright RGB, in sRGB.

    - EXIF rotation is applied. Of an animation the first frame is read, of a PIL image the current one.
    - Colours are converted to sRGB from the picture's ICC profile. Palette, CMYK and grey pictures become
      RGB.
    - Transparent parts get a background that contrasts with the opaque parts: white, or black or grey for a
      bright logo. `load_layers` keeps the transparency.
    - Grey of more than 8 bits (PIL modes `I;16`, `I`; arrays of integers) is scaled from the smallest depth
      of 8, 10, 12, 14 and 16 bits that holds its largest value, so that 12-bit data in a 16-bit file is not
      black.
    - Floats (PIL mode `F`, arrays) count as 0 to 1 if all values are in that range, otherwise as 0 to 255. In
      files, 32-bit values outside these ranges (heights, temperatures) are stretched from smallest to
      largest.
    - Arrays are (H, W), (H, W, 1), (H, W, 3) in RGB order or (H, W, 4) with alpha last; tensors of torch are
      (H, W) or (C, H, W), on any device.
    - A file object must be open in binary mode, and is read from its current position.
    - Metadata that is broken or too large is ignored. A JPEG that lacks only its end marker is read with a
      warning.

    Memory: the result takes 4 bytes for each pixel. Decoding takes 4 to 9 bytes for an opaque picture, and 13
    with transparency or for a JPEG that ends too early: opaque JPEG, PNG and TIFF of 100 megapixels stay
    below 1 GB, the others below 1.4 GB. The decoders of WebP and AVIF take up to 16 bytes. Pictures larger
    than `max_pixels` are refused after reading the header. PIL's global settings and warning filters are not
    changed.

    Args:
        source: path, file content, file object, PIL image (never changed), array or tensor.
        max_pixels: maximum number of pixels.
        accept_truncated: whether to read JPEG, PNG, BMP and PPM files that end too early, with a warning.

    Returns:
        Image of mode RGB at the picture's own size, upright (width and height are swapped if EXIF says so).
        It is `source` itself if that is an upright RGB image in sRGB already.

    Raises:
        ImageError: if it cannot be read; one line that names the file and the reason.
    """
    return load_layers(source, max_pixels=max_pixels, accept_truncated=accept_truncated).image


def load_layers(
    source: str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor,
    *,
    max_pixels: int = 100_000_000,
    accept_truncated: bool = False,
) -> LoadedImage:
    """Read a picture as `load_image` does, and keep its transparency."""
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if _is_tensor(source):
        return _from_array(_channels_last(source), max_pixels)
    if isinstance(source, Image.Image):
        name = printable(str(getattr(source, "filename", "") or "image"))
        check_size(source.width, source.height, name, max_pixels)
        try:
            source.load()
        except Exception as error:  # a decoder may raise anything on a broken file
            raise ImageError(f"{name}: cannot be decoded ({one_line(error)})") from error
        return _upright(source, name)
    file, name = open_source(source)
    with file:
        image = decode(file, name, max_pixels=max_pixels, accept_truncated=accept_truncated)
        return _upright(image, name)


def open_source(source: object) -> tuple[BinaryIO, str]:
    """Open a path or the content of a file for reading; return it with its name in errors.

    Raises:
        ImageError: if there is nothing to read.
    """
    if isinstance(source, (str, Path)):
        name = printable(str(source))
        if not str(source):
            raise ImageError("'': no such file")
        return _open_file(Path(source), name), name
    if isinstance(source, bytes):
        if not source:
            raise ImageError("bytes: empty")
        return BytesIO(source), "bytes"
    if hasattr(source, "read"):
        name = printable(str(getattr(source, "name", "") or type(source).__name__))
        try:
            content = source.read()
        except Exception as error:
            raise ImageError(f"{name}: cannot be read ({one_line(error)})") from error
        if not isinstance(content, bytes):
            raise ImageError(f"{name}: is open as text; open it in binary mode, as in open(path, 'rb')")
        if not content:
            raise ImageError(f"{name}: nothing is left to read; go to its beginning with seek(0)")
        return BytesIO(content), name
    raise ImageError(
        f"{type(source).__name__}: not a picture; give a path, bytes, a file object, a PIL image, a numpy "
        "array or a tensor"
    )


def _is_tensor(source: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of torch; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _channels_last(tensor: Tensor) -> np.ndarray:
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        shape = "x".join(map(str, tensor.shape))
        raise ImageError(f"tensor: shape ({shape}), expected (H, W), (1, H, W), (3, H, W) or (4, H, W)")
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    values = tensor.cpu().numpy()
    return values if values.ndim == 2 else values.transpose(1, 2, 0)


def check_header(file: BinaryIO, name: str, *, max_pixels: int) -> None:
    """Check from its header that a file is a picture within the limit. Nothing is decoded.

    Args:
        file: file at its beginning, open for reading; its position is restored.
        name: its name in errors.
        max_pixels: the most pixels allowed.

    Raises:
        ImageError: if its content has no format that `load_image` reads.
        ImageSizeError: if it has more pixels than the limit.
    """
    name = printable(name)
    width, height = identify(file, name).size
    file.seek(0)
    check_size(width, height, name, max_pixels)


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


def _upright(image: Image.Image, name: str) -> LoadedImage:
    try:
        orientation = _orientation(image, name)
        profile = image.info.get("icc_profile")
        turned = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        result = _rgb(turned, name, profile if isinstance(profile, bytes) else None)
    except ImageError:
        raise
    except Exception as error:  # a broken palette or profile, say
        raise ImageError(f"{name}: cannot be decoded ({one_line(error)})") from error
    if result.image is not image:
        result.image.info.clear()  # it may still have the rotation and the profile that were applied
    return result


def _orientation(image: Image.Image, name: str) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:
        warnings.warn(f"{name}: EXIF cannot be read, taken as upright ({one_line(error)})", stacklevel=2)
        return 1


def _rgb(image: Image.Image, name: str, profile: bytes | None = None) -> LoadedImage:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = Image.fromarray(to_bytes(np.asarray(image), name, stretch=True))
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # the value that means transparency
            layer = to_srgb(grey, profile, name).convert("RGBA")
            layer.putalpha(Image.fromarray(np.asarray(image) != clear).convert("L"))
            return _on_ground(layer)
        return LoadedImage(to_srgb(grey, profile, name).convert("RGB"))
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        return _on_ground(to_srgb(layer, profile, name))
    if profile and image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    image = to_srgb(image, profile, name)
    return LoadedImage(image if image.mode == "RGB" else image.convert("RGB"))


def _on_ground(layer: Image.Image) -> LoadedImage:
    """Put the RGBA picture on the first ground that contrasts with its opaque pixels, or on the best one."""
    alpha = layer.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return LoadedImage(layer.convert("RGB"))
    result = Image.new("RGB", layer.size, _ground(layer))
    result.paste(layer, mask=alpha)
    return LoadedImage(result, layer)


def _ground(layer: Image.Image) -> tuple[int, int, int]:
    side = tuple(min(length, _LOOKED_AT) for length in layer.size)
    pixels = np.asarray(layer.resize(side, Image.Resampling.NEAREST))  # type: ignore[arg-type]
    clear = pixels[:, :, 3] < 128
    # Only the contrast beside visible ground matters.
    beside = grown(clear, _BESIDE) & ~clear
    shown = pixels[beside if beside.any() else pixels[:, :, 3] > 0][:, :3].astype(np.float32)
    if not len(shown):
        return _GROUNDS[0]
    near = [float((np.linalg.norm(shown - ground, axis=1) < _NEAR).mean()) for ground in _GROUNDS]
    return _GROUNDS[0] if near[0] <= _FEW else _GROUNDS[near.index(min(near))]


def _from_array(array: np.ndarray, max_pixels: int) -> LoadedImage:
    shape = "x".join(map(str, array.shape))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"array: shape ({shape}), expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    check_size(array.shape[1], array.shape[0], "array", max_pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return _rgb(Image.fromarray(np.ascontiguousarray(to_bytes(array, "array", stretch=False))), "array")
