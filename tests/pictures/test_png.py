"""PNG files that viewers show, and that PIL alone refuses."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from profiled import SWAPPED, difference, matrix_profile, stored_in
from saliency_r1.errors import ImageError
from saliency_r1.images import load_image, load_layers

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def content(image: Image.Image | None = None, **options: object) -> bytes:
    file = BytesIO()
    (image or Image.fromarray(NOISE)).save(file, format="PNG", **options)
    return file.getvalue()


def with_chunk(extra: bytes, picture: bytes | None = None) -> bytes:
    """A picture with one more chunk after its header."""
    picture = picture or content()
    return picture[:33] + extra + picture[33:]


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"parameters\0" + b"x" * 3_000_000),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"y" * 30_000_000)),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"z" * 3_000_000)),
        chunk(b"zTXt", b"Comment\0\0no zlib stream"),
        chunk(b"tEXt", b"Author\0me", checksum=1),
        chunk(b"tIME", b"short"),
        chunk(b"gAMA", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"caBX", bytes(2_000_000)),
        chunk(b"acTL", b"\0"),
    ],
    ids=[
        "text",
        "packed text",
        "international text",
        "broken text",
        "checksum",
        "time",
        "gamma",
        "size",
        "own",
        "animation",
    ],
)
def test_metadata_that_is_too_large_or_broken_is_left_out(extra: bytes) -> None:
    assert np.array_equal(load_image(with_chunk(extra)), NOISE)


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (chunk(b"iCCP", b"name\0\0no zlib stream"), "colour profile"),
        (chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(40_000_000))), "colour profile"),
        (chunk(b"eXIf", b"II*\0", checksum=2), "EXIF"),
    ],
)
def test_what_would_change_the_look_is_left_out_with_a_warning(extra: bytes, what: str) -> None:
    with pytest.warns(UserWarning, match=f"^bytes: its {what} cannot be read and is left out$"):
        assert np.array_equal(load_image(with_chunk(extra)), NOISE)


def test_a_large_profile_is_applied() -> None:
    profile = matrix_profile(SWAPPED)
    large = struct.pack(">I", len(profile) + 2_000_000) + profile[4:] + bytes(2_000_000)
    picture = with_chunk(chunk(b"iCCP", b"wide\0\0" + zlib.compress(large)), content(stored_in(profile)))
    assert difference(load_image(picture)) < 3


def test_transparency_rotation_and_palette_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("P", (30, 20), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    read = load_layers(
        with_chunk(chunk(b"tEXt", b"a\0" + b"x" * 2_000_000), content(palette, transparency=0, exif=exif))
    )
    assert read.image.size == (20, 30)
    assert read.layer is not None
    assert read.layer.getpixel((19, 0)) == (255, 0, 0, 0)
    assert read.layer.getpixel((0, 0)) == (0, 255, 0, 255)


def test_grey_of_sixteen_bits_keeps_its_transparent_value() -> None:
    values = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(40, 60)
    picture = content(Image.fromarray(values), transparency=int(values[7, 9]))
    layer = load_layers(picture).layer
    assert layer is not None
    clear = np.asarray(layer.getchannel("A")) == 0
    assert clear.sum() == 1
    assert clear[7, 9]


def cut(picture: bytes, share: float) -> bytes:
    """The file up to that share of its compressed pixels."""
    start = picture.index(b"IDAT") + 4
    end = picture.rindex(b"IEND") - 8
    return picture[: start + int((end - start) * share)]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"])
def test_of_a_picture_that_is_cut_short_the_share_is_said_and_read_if_asked(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(NOISE).convert(mode)
    whole = load_image(content(image))
    picture = cut(content(image), 0.5)
    with pytest.raises(ImageError, match=r"^bytes: cut short, (3|4|5|6)\d% of the picture is there; get the"):
        load_image(picture)
    with pytest.warns(UserWarning, match=r"^bytes: cut short, \d\d% of the picture is there$"):
        read = load_layers(picture, accept_truncated=True)
    assert read.image.size == whole.size
    top = (0, 0, 60, 10)
    if read.layer is None:
        assert read.image.crop(top).tobytes() == whole.crop(top).tobytes()
    assert read.image.tobytes() != whole.tobytes()


def interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 file of 8-bit RGB."""
    height, width, _ = pixels.shape
    rows = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in pixels[y::dy, x::dx]:
            rows += b"\0" + row.tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_an_interlaced_picture_that_is_cut_short() -> None:
    whole = interlaced(NOISE)
    assert np.array_equal(load_image(whole), NOISE)
    with pytest.warns(UserWarning, match="cut short"):
        read = np.asarray(load_image(cut(whole, 0.6), accept_truncated=True))
    assert np.array_equal(read[::8, ::8], NOISE[::8, ::8])
    assert not np.array_equal(read, NOISE)


def test_only_the_end_of_the_file_may_be_missing_without_a_word() -> None:
    picture = content()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_image(picture[:-12]), NOISE)
