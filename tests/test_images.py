from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_r1.errors import ImageError
from saliency_r1.images import load_image, load_layers

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red, green; blue, white: a picture whose corners tell how it was turned."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The four corners, rounded to whole colours (JPEG is not exact)."""
    width, height = image.size
    points = [(2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3)]
    return [tuple(255 * round(value / 255) for value in np.asarray(image)[y, x]) for x, y in points]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def error_line(source: object, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_rotation_is_applied_once(kind: str, orientation: int, stored: Image.Transpose | None) -> None:
    turned = quarters().transpose(stored) if stored is not None else quarters()
    image = load_image(encoded(turned, kind, exif=exif(orientation)))
    assert image.size == (64, 32)
    assert corners(image) == [RED, GREEN, BLUE, WHITE]
    again = load_image(image)
    assert corners(again) == [RED, GREEN, BLUE, WHITE]
    assert corners(load_image(encoded(again, "PNG"))) == [RED, GREEN, BLUE, WHITE]


def test_exif_of_a_pil_image_is_applied_and_the_image_is_left_alone() -> None:
    given = Image.open(BytesIO(encoded(quarters(), "JPEG", exif=exif(6))))
    assert load_image(given).size == (32, 64)
    assert given.size == (64, 32)
    assert given.getexif()[0x0112] == 6


def test_broken_exif_is_said_and_the_picture_still_read() -> None:
    with pytest.warns(UserWarning, match="bytes: EXIF cannot be read, taken as upright"):
        image = load_image(encoded(quarters(), "PNG", exif=b"Exif\x00\x00no EXIF at all"))
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "JPEG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "PPM"),
        ("RGB", "JPEG2000"),
    ],
)
def test_every_mode_becomes_rgb_of_the_same_look(mode: str, kind: str) -> None:
    image = load_image(encoded(quarters().convert(mode), kind))
    assert (image.mode, image.size) == ("RGB", (64, 32))
    if mode in ("1", "L", "LA"):
        assert len({*np.asarray(image)[-3, -3].tolist()}) == 1
        assert corners(image)[3] == WHITE
    else:
        assert corners(image) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(("bits", "mode"), [(8, "I;16"), (12, "I;16"), (16, "I;16"), (16, "I"), (10, "I")])
def test_deep_grey_is_scaled_by_the_depth_that_holds_it(bits: int, mode: str, tmp_path: Path) -> None:
    white = (1 << bits) - 1
    ramp = np.linspace(0, white, 256).round().astype(np.uint16 if mode == "I;16" else np.int32)
    path = tmp_path / "ramp.tif"
    Image.fromarray(ramp.reshape(16, 16)).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    grey = np.asarray(load_image(path))[:, :, 0].reshape(-1)
    assert np.abs(grey.astype(int) - np.arange(256)).max() <= 1


def test_sixteen_bit_png_is_not_clipped_to_white() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(load_image(encoded(Image.fromarray(ramp), "PNG")))
    assert grey[0, 0, 0] == 0
    assert grey[-1, -1, 0] == 255
    assert np.median(grey) == pytest.approx(127, abs=2)


def test_float_and_wide_integer_files_are_read_by_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for number, values in enumerate([ramp, ramp * 255, ramp * 3000 - 1000, (ramp * 9e6).astype(np.int32)]):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(values).save(path)
        grey = np.asarray(load_image(path))[:, :, 0].reshape(-1).astype(int)
        assert np.abs(grey - np.arange(256)).max() <= 1
    path = tmp_path / "nan.tif"
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    assert error_line(path) == f"{path}: holds NaN or infinity, expected finite values"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_lies_on_white(kind: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    image.paste((0, 0, 0, 128), (0, 6, 8, 8))
    pixels = np.asarray(load_image(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 7].tolist() == [255, 255, 255]
    assert pixels[7, 7].tolist() == [127, 127, 127]


def test_a_transparent_palette_colour_lies_on_white() -> None:
    image = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    red = image.getpixel((0, 0))
    for kind in ("PNG", "GIF"):
        shown = load_image(encoded(image, kind, transparency=red))
        assert corners(shown) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    image = load_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert corners(image) == [RED] * 4


def test_one_pixel() -> None:
    assert np.asarray(load_image(encoded(Image.new("RGB", (1, 1), BLUE), "PNG"))).tolist() == [[[0, 0, 255]]]


def test_paths_and_text_paths_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "a b ü.png"
    quarters().save(path)
    assert load_image(path).tobytes() == load_image(str(path)).tobytes() == quarters().tobytes()


ramp = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(ramp, ramp, id="uint8"),
        pytest.param(ramp[:, :, 0], np.repeat(ramp[:, :, :1], 3, axis=2), id="grey"),
        pytest.param(ramp[:, :, :1], np.repeat(ramp[:, :, :1], 3, axis=2), id="grey with channel"),
        pytest.param(ramp[::-1, ::-1], ramp[::-1, ::-1], id="view"),
        pytest.param(ramp.astype(np.int64), ramp, id="int64 of 8 bits"),
        pytest.param(ramp.astype(np.uint16) * 257, ramp, id="uint16"),
        pytest.param(ramp / 255, ramp, id="float 0..1"),
        pytest.param((ramp / 255).astype(np.float16), ramp, id="half"),
        pytest.param(ramp / 255 * 1.0000001, ramp, id="float a little over 1"),
        pytest.param(ramp.astype(np.float32), ramp, id="float 0..255"),
        pytest.param(ramp > 100, (ramp > 100) * np.uint8(255), id="bool"),
    ],
)
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    image = load_image(array)
    assert image.mode == "RGB"
    assert np.asarray(image).tolist() == expected.tolist()


def test_an_array_with_alpha_lies_on_white() -> None:
    array = np.zeros((2, 2, 4))
    array[0, 0, 3] = 1
    pixels = np.asarray(load_image(array))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "array: 5x0 pixels, there is nothing to see"),
        (np.zeros((5, 0)), "array: 0x5 pixels, there is nothing to see"),
        (np.zeros(5), "array: shape (5), expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"),
        (np.zeros((3, 8, 8)), "array: shape (3x8x8), expected (H, W)"),
        (np.zeros((1, 8, 8, 3)), "array: shape (1x8x8x3), expected (H, W)"),
        (np.zeros((2, 2), complex), "array: dtype complex128, expected bool, integers or floats"),
        (np.full((2, 2), "a"), "array: dtype <U1, expected bool, integers or floats"),
        (np.full((2, 2), np.nan), "array: holds NaN or infinity"),
        (np.array([[0.0, np.inf]]), "array: holds NaN or infinity"),
        (np.array([[-1, 5]]), "array: values from -1 to 5, expected 0 to 1 (floats), 0 to 255 or 0 to 65535"),
        (np.array([[-1.8, 2.2]]), "array: values from -1.8 to 2.2, expected"),
        (np.array([[0, 70_000]]), "array: values from 0 to 70000, expected"),
    ],
)
def test_a_wrong_array_is_an_error(array: np.ndarray, message: str) -> None:
    assert error_line(array).startswith(message)


def test_each_unreadable_input_says_its_name_and_why(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("This is no picture, whatever it is called.")
    empty = tmp_path / "empty.png"
    empty.touch()
    missing = tmp_path / "missing.jpg"
    assert error_line(text) == f"{text}: not a picture (the content is text)"
    assert error_line(empty) == f"{empty}: the file is empty"
    assert error_line(missing) == f"{missing}: no such file"
    assert error_line(tmp_path) == f"{tmp_path}: is a folder, expected a picture file"
    assert error_line("") == "'': no such file"
    assert error_line("a\0b").endswith(": cannot be opened (embedded null byte)")
    assert error_line("x" * 5000).endswith(": cannot be opened (File name too long)")
    assert error_line(tmp_path / "line\nbreak.jpg").endswith("line\\nbreak.jpg': no such file")
    assert error_line(b"") == "bytes: empty"
    assert error_line(b"no picture").startswith("bytes: not a picture")
    assert error_line([1, 2]).startswith("list: not a picture; give a path")
    assert error_line(Image.new("RGB", (0, 3))) == "image: 0x3 pixels, there is nothing to see"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert error_line(tmp_path / "pipe.jpg").endswith("pipe.jpg: is not a regular file")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error(kind: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    assert error_line(path).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000"])
def test_a_damaged_file_gives_a_picture_or_an_image_error(kind: str) -> None:
    random = np.random.default_rng(1)
    data = np.frombuffer(encoded(quarters(), kind), np.uint8)
    for _ in range(60):
        damaged = data.copy()
        damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                mode = load_image(damaged.tobytes(), max_pixels=1_000_000).mode
            except ImageError as error:
                mode = "RGB" if len(str(error).splitlines()) == 1 else "error of several lines"
            assert mode == "RGB"


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        import zlib

        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    side = (200_000).to_bytes(4, "big")
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side + side + b"\x08\x02\x00\x00\x00")
    path = tmp_path / "bomb.png"
    path.write_bytes(header + chunk(b"IDAT", b"x"))
    assert error_line(path) == f"{path}: 200000x200000 pixels are 40000.0 megapixels, the limit is 100"


def test_the_limit_holds_for_every_source_and_is_inclusive(tmp_path: Path) -> None:
    path = tmp_path / "ten.png"
    Image.new("RGB", (10, 10)).save(path)
    sources: list[Any] = [path, path.read_bytes(), Image.new("RGB", (10, 10)), np.zeros((10, 10), np.uint8)]
    for source in sources:
        assert "10x10 pixels are 0.0 megapixels, the limit is 9.9e-05" in error_line(source, max_pixels=99)
        assert load_image(source, max_pixels=100).size == (10, 10)


@pytest.mark.slow
def test_a_hundred_megapixels_are_read_without_a_warning_and_pil_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (10_000, 10_000), 7).save(path, compress_level=1)
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (10_000, 10_000))
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == (limit, filters)


def test_threads(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(load_image, [tmp_path / "a.png"] * 40))
    assert all(image.tobytes() == quarters().tobytes() for image in images)


def logo(colour: tuple[int, int, int], other: tuple[int, int, int] | None = None) -> Image.Image:
    """A disc and a bar on nothing."""
    image = Image.new("RGBA", (80, 60), (123, 45, 67, 0))
    image.paste((*colour, 255), (20, 20, 60, 50))
    image.paste((*(other or colour), 255), (35, 5, 45, 20))
    return image


@pytest.mark.parametrize(
    ("colours", "ground"),
    [
        ([(255, 255, 255)], (0, 0, 0)),
        ([(250, 240, 230)], (0, 0, 0)),
        ([(20, 20, 20)], (255, 255, 255)),
        ([(200, 30, 40)], (255, 255, 255)),
        ([(255, 255, 255), (0, 0, 0)], (128, 128, 128)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_ground_behind_transparency_contrasts(
    colours: list[tuple[int, int, int]], ground: tuple[int, int, int], kind: str
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    read = load_layers(encoded(logo(*colours), kind, **options))
    assert read.image.getpixel((2, 2)) == ground
    assert read.image.getpixel((40, 35)) == colours[0]
    assert read.layer is not None
    assert read.layer.getchannel("A").tobytes() == logo(*colours).getchannel("A").tobytes()
    assert not read.invisible


def test_a_picture_that_is_opaque_throughout_has_no_layer_and_one_without_a_pixel_is_invisible() -> None:
    assert load_layers(encoded(quarters().convert("RGBA"), "PNG")).layer is None
    assert load_layers(np.zeros((4, 4, 4), np.uint8)).invisible
    assert not load_layers(quarters()).invisible


def test_file_objects_are_read_from_where_they_are(tmp_path: Path) -> None:
    picture = Image.new("RGB", (5, 3), (10, 200, 30))
    path = tmp_path / "dog.png"
    path.write_bytes(b"before" + encoded(picture, "PNG"))
    with path.open("rb") as file:
        file.seek(6)
        assert load_image(file).tobytes() == picture.tobytes()
        with pytest.raises(ImageError, match=r"dog\.png: nothing is left to read"):
            load_image(file)
    assert load_image(BytesIO(encoded(picture, "PNG"))).size == (5, 3)
    with path.open(encoding="latin-1") as text, pytest.raises(ImageError, match="open it in binary mode"):
        load_image(text)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="BytesIO: not a picture"):
        load_image(BytesIO(b"no picture"))


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.uint8, 255), (torch.float32, 1), (torch.bfloat16, 1), (torch.float64, 255)]
)
def test_tensors_have_their_channels_first(dtype: torch.dtype, scale: int) -> None:
    colours = torch.tensor([1.0, 0.0, 1.0, 1.0])
    tensor = (colours[:, None, None].expand(4, 2, 6) * scale).to(dtype)
    for channels in (3, 4):
        image = load_image(tensor[:channels].requires_grad_(dtype.is_floating_point))
        assert image.size == (6, 2)
        assert image.getpixel((3, 1)) == (255, 0, 255)
    assert load_image(tensor[:1]).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(tensor[1]).getpixel((0, 0)) == (0, 0, 0)
    with pytest.raises(ImageError, match=r"tensor: shape \(2x2x6\), expected \(H, W\)"):
        load_image(tensor[:2])
