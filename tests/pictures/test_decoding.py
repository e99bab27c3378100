"""Files that are cut short, of a format that needs a library, or no pictures at all."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from profiled import SWAPPED, difference, matrix_profile, stored_in
from saliency_r1.errors import ImageError
from saliency_r1.images import load_image
from saliency_r1.pictures import decoding


def photo(size: tuple[int, int] = (240, 160)) -> Image.Image:
    return Image.fromarray(data.chelsea()).resize(size)


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    file = BytesIO()
    (image or photo()).save(file, format="JPEG", **{"quality": 90, **options})
    return file.getvalue()


KINDS = pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"quality": 30}],
    ids=lambda options: next(iter(options), "plain"),
)


@KINDS
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read_with_a_warning(options: dict, missing: int) -> None:
    whole = jpeg(**options)
    with pytest.warns(UserWarning, match=r"^bytes: the mark of its end is missing, the picture is whole$"):
        read = load_image(whole[:-missing])
    assert read.tobytes() == load_image(whole).tobytes()


@KINDS
@pytest.mark.parametrize("share", [0.35, 0.7, 0.95])
def test_a_jpeg_that_is_cut_short_says_how_much_is_there_and_is_read_if_asked(
    options: dict, share: float
) -> None:
    whole = jpeg(**options)
    start = whole.index(b"\xff\xda")
    part = whole[: start + int((len(whole) - start) * share)]
    with pytest.raises(
        ImageError, match=r"cut short, \d+% of the picture is there; .*--accept-truncated"
    ) as said:
        load_image(part)
    assert len(str(said.value).splitlines()) == 1
    with pytest.warns(UserWarning, match=r"^bytes: cut short, \d+% of the picture is there$"):
        read = np.asarray(load_image(part, accept_truncated=True))
    original = np.asarray(load_image(whole))
    assert read.shape == original.shape
    if "progressive" not in options:
        told = int(str(said.value).partition("%")[0].rpartition(" ")[2])
        assert abs(told - 100 * share) < 20
        rows = int(len(read) * told / 100) - 16
        assert np.array_equal(read[: max(0, rows)], original[: max(0, rows)])


@pytest.mark.parametrize("kind", ["BMP", "PPM"])
def test_plain_rows_are_filled_up(kind: str) -> None:
    file = BytesIO()
    photo().save(file, format=kind)
    part = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(ImageError, match="50% of the picture is there"):
        load_image(part)
    with pytest.warns(UserWarning, match="cut short"):
        read = np.asarray(load_image(part, accept_truncated=True))
    assert read.shape == (160, 240, 3)
    there = slice(90, 160) if kind == "BMP" else slice(0, 70)  # BMP begins at the bottom
    assert np.array_equal(read[there], np.asarray(photo())[there])


def test_a_webp_that_is_cut_short_says_how_much_is_there() -> None:
    file = BytesIO()
    photo().save(file, format="WEBP")
    size = len(file.getvalue())
    with pytest.raises(ImageError, match=rf"; {size // 2:,} of {size:,} bytes are there, get the"):
        load_image(file.getvalue()[: size // 2])


def test_mpo_is_read_as_its_first_picture(tmp_path: Path) -> None:
    path = tmp_path / "stereo.mpo"
    photo().save(path, format="MPO", save_all=True, append_images=[photo().rotate(180)], quality=95)
    assert np.abs(np.asarray(load_image(path), int) - np.asarray(photo(), int)).mean() < 3


@pytest.mark.parametrize("ending", [".heic", ".HEIC", ".heif", ".jpg"])
def test_heic_is_read_with_its_profile(ending: str, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'saliency-r1[heif]'")
    profile = matrix_profile(SWAPPED)
    path = tmp_path / f"photo{ending}"
    heif.from_pillow(stored_in(profile)).save(path, quality=95, icc_profile=profile)
    read = load_image(path)
    assert read.size == (150, 100)
    assert difference(read) < 10


def test_heic_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding.heif_opener.cache_clear()
    try:
        with pytest.raises(ImageError) as said:
            load_image(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100))
    finally:
        monkeypatch.undo()
        decoding.heif_opener.cache_clear()
    assert str(said.value) == "bytes: HEIC needs pillow-heif: pip install 'saliency-r1[heif]'"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
        (b"\n\n<HTML>\n<head>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='10'/>", "an SVG drawing: export it as PNG"),
        (b"<?xml version='1.0'?>\n<!-- from a tool --><svg width='10'/>", "an SVG drawing"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            "a Git LFS pointer: run `git lfs",
        ),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL picture"),
        (b"PK\3\4" + bytes(40), "a zip archive"),
        (bytes(2000), "zeros, as of a download that did not finish"),
        ("Grüße, ein Text. ".encode() * 60, "text"),
        (b'{"error": "not found"}', "text"),
        (bytes(range(255, 0, -1)), "of no picture format known here"),
    ],
)
def test_what_is_no_picture_is_told_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        load_image(path)
    assert str(error.value).startswith(f"{path}: not a picture (the content is {said}")
    assert len(str(error.value).splitlines()) == 1


def test_a_tiff_of_floats_in_colour_says_how_to_save_it(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "render.tif"
    tifffile.imwrite(path, np.asarray(photo(), np.float32) / 255, photometric="rgb")
    with pytest.raises(ImageError) as said:
        load_image(path)
    assert str(said.value) == (
        f"{path}: not a picture (TIFF with pixels of a kind that is not read, "
        "save it with 8 or 16 bits a channel)"
    )


def test_a_png_without_width_has_nothing_to_see() -> None:
    file = BytesIO()
    Image.new("RGB", (1, 10)).save(file, format="PNG")
    content = file.getvalue()
    with pytest.raises(ImageError, match=r"^bytes: 0x10 pixels, there is nothing to see$"):
        load_image(content[:16] + bytes(4) + content[20:])


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE])
@pytest.mark.parametrize(
    "start", [b"JFIF\0", b"Exif\0\0II*\0", b"ICC_PROFILE\0\1", b"Photoshop 3.0\0" + b"8BIM", b"MPF\0"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_jpeg_with_damaged_metadata_is_read(marker: int, start: bytes) -> None:
    whole = jpeg()
    for rest in (b"", b"\xff", bytes(30)):
        segment = bytes([0xFF, marker]) + (len(start + rest) + 2).to_bytes(2, "big") + start + rest
        read = load_image(whole[:2] + segment + whole[2:])
        assert read.tobytes() == load_image(whole).tobytes()
