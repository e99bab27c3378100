from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from skimage import data

from saliency_r1 import overlay as overlay_module
from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic, write_bytes_atomic
from saliency_r1.overlay import PALETTE
from saliency_r1.pictures import encoding
from saliency_r1.pictures.encoding import save_jpeg
from saliency_r1.result import Instance, SaliencyResult
from saliency_r1.tasks import Task

WIDTH, HEIGHT = 60, 40

# pycocotools itself, when it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def disc(x: float, y: float, radius: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A round mask with a soft rim."""
    rows, columns = np.mgrid[:height, :width]
    return np.clip(radius - np.hypot(columns - x, rows - y) + 0.5, 0, 1).astype(np.float32)


def made(*masks: np.ndarray, **changes: Any) -> SaliencyResult:
    parts: dict[str, Any] = {
        "name": "dog",
        "source": "photos/dog.jpg",
        "image": Image.new("RGB", (WIDTH, HEIGHT), (200, 60, 40)),
        "task": Task.SIS,
        "text": "<think>Why.</think><answer><ins>dog</ins></answer>",
        "reasoning": "Why.",
        "expressions": tuple(f"dog {number}" for number in range(len(masks))),
        "instances": tuple(Instance(f"dog {number}", mask, 0.5) for number, mask in enumerate(masks)),
        "confidence": 0.75,
        "model": "nano",
        "seconds": {"policy": 0.25, "segmenter": 0.5, "total": 0.75},
    }
    return SaliencyResult(**{**parts, **changes})


def test_an_instance_measures_its_mask_at_one_half() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[5:15, 20:50] = 0.5
    mask[0, 0] = np.nextafter(np.float32(0.5), np.float32(0))
    instance = Instance("dog", mask, 0.9)
    assert instance.area == 300
    assert instance.box == (20, 5, 30, 10)
    assert Instance("one pixel", (mask > 2).astype(np.float32), 0).box is None
    mask[:] = 0
    mask[-1, -1] = 1
    assert Instance("corner", mask, 1).box == (WIDTH - 1, HEIGHT - 1, 1, 1)


@pytest.mark.parametrize(
    "mask", [disc(20, 15, 9), disc(0, 0, 5), np.ones((3, 7), np.float32), disc(0, 0, 0) * 0]
)
def test_the_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    instance = Instance("dog", mask, 0.9)
    rle = json.loads(json.dumps(instance.rle))
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    assert np.array_equal(coco.decode(rle).astype(bool), mask >= 0.5)
    assert coco.area(rle) == instance.area
    assert coco.toBbox(rle).astype(int).tolist() == list(instance.box or (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mask", "score", "error", "message"),
    [
        (np.zeros((4, 4)), 0.5, TypeError, "mask of 'dog': found float64, expected a float32 array"),
        ([[0.0]], 0.5, TypeError, "mask of 'dog': found list, expected a float32 array"),
        (np.zeros(4, np.float32), 0.5, ValueError, "mask of 'dog': found shape (4,), expected (H, W)"),
        (np.zeros((0, 4), np.float32), 0.5, ValueError, "mask of 'dog': found shape (0, 4)"),
        (
            np.full((4, 4), 2, np.float32),
            0.5,
            ValueError,
            "mask of 'dog': found values 2 to 2, expected 0 to 1",
        ),
        (np.full((4, 4), np.nan, np.float32), 0.5, ValueError, "mask of 'dog': found values nan to nan"),
        (np.zeros((4, 4), np.float32), 1.5, ValueError, "score of 'dog': found 1.5, expected 0 to 1"),
        (np.zeros((4, 4), np.float32), float("nan"), ValueError, "score of 'dog': found nan"),
    ],
)
def test_a_wrong_instance_cannot_be_made(
    mask: np.ndarray, score: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Instance("dog", mask, score)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": Image.new("L", (WIDTH, HEIGHT))}, ValueError, "image: found mode L, expected RGB"),
        ({"image": np.zeros((HEIGHT, WIDTH, 3))}, TypeError, "image: found ndarray, expected a PIL image"),
        (
            {"image": Image.new("RGB", (HEIGHT, WIDTH))},
            ValueError,
            "mask of 'dog 0': found 60x40 pixels, expected the image's 40x60",
        ),
        ({"confidence": -0.1}, ValueError, "confidence: found -0.1, expected 0 to 1"),
        ({"task": "depth"}, SaliencyError, "unknown task 'depth'"),
        ({"seconds": {"total": float("nan")}}, ValueError, "seconds of total: found nan, expected 0 or more"),
    ],
)
def test_a_wrong_result_cannot_be_made(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        made(disc(20, 20, 8), **changes)
    assert str(caught.value).startswith(message)


def test_the_mask_is_the_union_of_the_instances() -> None:
    left, right = disc(15, 20, 8), disc(40, 20, 8) * np.float32(0.8)
    result = made(left, right)
    assert result.mask.dtype == np.float32
    assert np.array_equal(result.mask, np.maximum(left, right))
    assert np.array_equal(result.binary, (left >= 0.5) | (right >= 0.5))
    nothing = made()
    assert nothing.mask.dtype == np.float32
    assert nothing.mask.shape == (HEIGHT, WIDTH)
    assert not nothing.mask.any()


def brightness(pixels: np.ndarray) -> float:
    return float(pixels.reshape(-1, 3).astype(float).mean())


def test_the_overlay_keeps_what_is_salient_and_dims_the_rest() -> None:
    photo = np.asarray(Image.fromarray(data.astronaut()).resize((256, 256)))
    mask = disc(110, 90, 60, 256, 256)
    overlay = np.asarray(made(mask, image=Image.fromarray(photo), task=Task.SOD).overlay())
    assert overlay.shape == photo.shape
    inside, outside = disc(110, 90, 50, 256, 256) == 1, disc(110, 90, 70, 256, 256) == 0
    change = np.abs(overlay[inside].astype(int) - photo[inside])
    assert change.mean() < 15
    assert 0.3 * brightness(photo[outside]) < brightness(overlay[outside]) < 0.5 * brightness(photo[outside])


@pytest.mark.parametrize("level", [0, 40, 128, 255])
def test_the_outline_stands_out_on_dark_and_on_bright_photos(level: int) -> None:
    photo = Image.new("RGB", (200, 200), (level, level, level))
    result = made(disc(100, 100, 50, 200, 200), image=photo, task=Task.SOD)
    overlay = np.asarray(result.overlay()).astype(int)
    row = overlay[100, :100]
    assert np.abs(row[48:53] - np.array(PALETTE[0])).sum(axis=1).min() < 60
    if level > 100:
        assert row[44:50].sum(axis=1).min() < 120  # the dark edge towards the surroundings
        assert row[51:57].sum(axis=1).min() < row[70].sum() - 100


def test_each_instance_has_a_colour_of_its_own() -> None:
    photo = Image.new("RGB", (200, 200), (90, 90, 90))
    masks = disc(50, 100, 30, 200, 200), disc(150, 100, 30, 200, 200)
    overlay = np.asarray(made(*masks, image=photo).overlay()).astype(int)
    for centre, colour in zip((50, 150), PALETTE, strict=False):
        rim = overlay[100, centre - 33 : centre - 27]
        assert np.abs(rim - np.array(colour)).sum(axis=1).min() < 60
        assert np.argmax(overlay[100, centre + 15]) == np.argmax(colour)


def test_the_overlay_has_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.fromarray(data.astronaut()[:300, :200])
    result = made(disc(90, 150, 80, 200, 300), disc(150, 60, 30, 200, 300), image=photo)
    whole = np.asarray(result.overlay()).astype(int)
    monkeypatch.setattr(overlay_module, "_TILE", 37)
    assert np.abs(np.asarray(result.overlay()).astype(int) - whole).max() <= 2


def test_the_cutout_is_solid_inside_the_mask_and_hides_the_surroundings() -> None:
    mask = disc(20, 20, 9)
    cutout = np.asarray(made(mask).cutout())
    assert cutout.shape == (HEIGHT, WIDTH, 4)
    assert (cutout[disc(20, 20, 7) == 1] == [200, 60, 40, 255]).all()
    assert (cutout[cutout[:, :, 3] > 0][:, :3] == [200, 60, 40]).all()
    assert (cutout[disc(20, 20, 11) == 0] == 0).all()
    assert not np.asarray(made().cutout()).any()


def test_a_notebook_shows_the_overlay(tmp_path: Path) -> None:
    large = disc(600, 300, 200, 1200, 700)
    result = made(large, image=Image.new("RGB", (1200, 700), (200, 60, 40)))
    with Image.open(BytesIO(result._repr_png_())) as shown:
        assert (shown.format, shown.width) == ("PNG", 800)
        assert shown.height > 800 * 700 / 1200  # the legend
        assert np.asarray(shown)[220, 400, 0] > np.asarray(shown)[10, 10, 0]


def test_what_writing_took_is_counted_once(tmp_path: Path) -> None:
    result = made(disc(20, 20, 9))
    described = json.loads(result.save(tmp_path)["json"].read_text())
    again = json.loads(result.save(tmp_path)["json"].read_text())
    for seconds in (described["seconds"], again["seconds"]):
        assert seconds["writing"] > 0
        assert seconds["total"] == pytest.approx(0.75 + seconds["writing"])
    assert again["seconds"] == result.seconds
    alone = made(disc(20, 20, 9))
    alone.save(tmp_path, mask=False, overlay=False, cutout=False)
    assert "writing" not in alone.seconds


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_pictures_of_one_pixel_work(size: tuple[int, int], tmp_path: Path) -> None:
    mask = np.ones(size[::-1], np.float32)
    paths = made(mask, image=Image.new("RGB", size), task=Task.SOD).save(tmp_path)
    for kind in ("mask", "overlay", "cutout"):
        with Image.open(paths[kind]) as image:
            assert image.size == size


def test_the_dictionary_holds_all_but_the_pixels() -> None:
    result = made(
        disc(20, 20, 9), disc(0, 0, 0) * 0, confidence=np.float32(0.5), source=Path("dög\udcff.jpg")
    )
    line = result.to_json()
    assert line.isascii()
    assert "\n" not in line
    read = json.loads(line)
    assert read == result.to_dict()
    assert read["name"] == "dog"
    assert read["source"] == "dög\udcff.jpg"
    assert (read["width"], read["height"], read["task"]) == (WIDTH, HEIGHT, "sis")
    assert read["text"] == "<think>Why.</think><answer><ins>dog</ins></answer>"
    assert read["reasoning"] == "Why."
    assert read["expressions"] == ["dog 0", "dog 1"]
    assert (read["confidence"], read["model"], read["version"]) == (0.5, "nano", version("saliency-r1"))
    assert read["seconds"] == {"policy": 0.25, "segmenter": 0.5, "total": 0.75}
    first, second = read["instances"]
    assert (first["expression"], first["score"], first["area"]) == ("dog 0", 0.5, result.instances[0].area)
    assert first["box"] == list(result.instances[0].box or ())
    assert np.array_equal(coco.decode(first["segmentation"]), result.instances[0].binary)
    assert (second["box"], second["area"]) == (None, 0)


def test_the_saved_files_read_back(tmp_path: Path) -> None:
    result = made(disc(15, 20, 8), disc(40, 20, 8))
    paths = result.save(tmp_path / "new", "holiday/dog.v2")
    folder = tmp_path / "new" / "holiday"
    assert {kind: path.name for kind, path in paths.items()} == {
        "mask": "dog.v2_mask.png",
        "mask_1": "dog.v2_mask_1.png",
        "mask_2": "dog.v2_mask_2.png",
        "overlay": "dog.v2_overlay.jpg",
        "cutout": "dog.v2_cutout.png",
        "json": "dog.v2.json",
    }
    assert sorted(folder.iterdir()) == sorted(paths.values())
    masks = {"mask": result.mask, "mask_1": result.instances[0].mask, "mask_2": result.instances[1].mask}
    for kind, mask in masks.items():
        with Image.open(paths[kind]) as image:
            assert (image.mode, image.size) == ("L", (WIDTH, HEIGHT))
            assert np.array_equal(np.asarray(image), np.rint(mask * 255))
            assert np.array_equal(np.asarray(image) >= 128, mask >= 0.5)
    with Image.open(paths["overlay"]) as image:
        assert (image.mode, image.size) == ("RGB", result.overlay(legend=True).size)
        assert image.height > HEIGHT  # the legend
    with Image.open(paths["cutout"]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(result.cutout()))
    text = paths["json"].read_text()
    assert text.count("\n") == 1
    assert json.loads(text) == result.to_dict()


def test_an_instance_of_sis_has_a_mask_file_even_if_it_is_the_only_one(tmp_path: Path) -> None:
    paths = made(disc(15, 20, 8)).save(tmp_path, overlay=False, cutout=False, json=False)
    assert list(paths) == ["mask", "mask_1"]
    assert list(made().save(tmp_path / "none", overlay=False, cutout=False, json=False)) == ["mask"]


def test_masks_of_a_run_that_found_more_are_removed(tmp_path: Path) -> None:
    made(disc(15, 20, 8), disc(40, 20, 8), disc(28, 32, 4)).save(tmp_path, "dog")
    (tmp_path / "dog_mask_7.png").touch()  # not of that run
    paths = made(disc(15, 20, 8)).save(tmp_path, "dog")
    assert sorted(tmp_path.iterdir()) == sorted([*paths.values(), tmp_path / "dog_mask_7.png"])


def test_only_instances_are_numbered() -> None:
    photo = Image.new("RGB", (200, 200), (90, 90, 90))
    mask = disc(100, 100, 60, 200, 200)
    numbered, plain = (
        np.asarray(made(mask, image=photo, task=task).overlay()) for task in (Task.SIS, Task.COSOD)
    )
    assert (numbered[94:107, 94:107] == PALETTE[0]).all(axis=2).any()
    assert not (plain[80:120, 80:120] == PALETTE[0]).all(axis=2).any()
    assert made(mask, image=photo).overlay().size == (200, 200)


def test_a_picture_too_long_for_jpeg_is_a_png(tmp_path: Path) -> None:
    path = save_jpeg(Image.new("RGB", (65_501, 1)), tmp_path / "long.jpg")
    assert path == tmp_path / "long.png"
    assert [each.name for each in tmp_path.iterdir()] == ["long.png"]
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (65_501, 1))


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    result = made(disc(15, 20, 8), task=Task.SOD)
    assert list(result.save(tmp_path, overlay=False, cutout=False, json=False)) == ["mask"]
    assert [path.name for path in tmp_path.iterdir()] == ["dog_mask.png"]


@pytest.mark.parametrize("stem", ["", ".", "../dog", "a/../../dog", "/dog"])
def test_a_stem_cannot_lead_out_of_the_folder(stem: str, tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="expected a relative name"):
        made().save(tmp_path / "out", stem)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_encoder_leaves_no_file_behind_and_the_old_one_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = made(disc(15, 20, 8))
    before = result.save(tmp_path)["mask"].read_bytes()

    def half_way(image: Image.Image, file: Any, **options: Any) -> None:
        file.write(b"half of a picture")
        raise RuntimeError("the encoder failed")

    monkeypatch.setattr(encoding, "write_png", half_way)
    monkeypatch.setattr(Image.Image, "save", half_way)
    files = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="the encoder failed"):
        result.save(tmp_path)
    with pytest.raises(RuntimeError, match="the encoder failed"):
        result.save(tmp_path, "cat")
    assert sorted(tmp_path.iterdir()) == files
    assert (tmp_path / "dog_mask.png").read_bytes() == before


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    write_bytes_atomic(path, b"old")
    with open_atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupted_write_leaves_nothing(interruption: type[BaseException], tmp_path: Path) -> None:
    def write() -> None:
        with open_atomic(tmp_path / "new" / "file.bin") as file:
            file.write(b"half")
            raise interruption

    with pytest.raises((interruption, SaliencyError)):
        write()
    assert list((tmp_path / "new").iterdir()) == []


def written_over_a_folder(folder: Path) -> None:
    (folder / "taken").mkdir()
    write_bytes_atomic(folder / "taken", b"data")


def written_below_a_file(folder: Path) -> None:
    (folder / "file").touch()
    write_bytes_atomic(folder / "file" / "taken", b"data")


@pytest.mark.parametrize("write", [written_over_a_folder, written_below_a_file])
def test_what_cannot_be_written_is_named_in_one_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match=r"taken: cannot be written \(.+\)$") as caught:
        write(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_the_longest_file_name_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_bytes_atomic(path, b"data")
    assert path.read_bytes() == b"data"


@pytest.mark.skipif(os.name != "posix", reason="permissions of this kind are POSIX's")
def test_written_files_are_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_another_photo_of_the_run_is_not_overwritten(tmp_path: Path) -> None:
    first = made(disc(20, 15, 9), name="1", source="a/1.jpg")
    second = made(disc(40, 15, 9), name="1", source="b/1.jpg")
    third = made(disc(40, 15, 9), name="1-2", source="c/1-2.jpg")
    assert first.save(tmp_path)["json"] == tmp_path / "1.json"
    with pytest.warns(UserWarning, match=r"1: holds another photo's files of this run; those of b/1.jpg are"):
        assert second.save(tmp_path)["json"] == tmp_path / "1-2.json"
    with pytest.warns(UserWarning, match="written as 1-2-2"):
        assert third.save(tmp_path)["json"] == tmp_path / "1-2-2.json"
    assert first.save(tmp_path)["json"] == tmp_path / "1.json"  # its own files may be written again
    with pytest.warns(UserWarning, match="written as 1-2"):
        assert second.save(tmp_path)["mask"] == tmp_path / "1-2_mask.png"
    assert json.loads((tmp_path / "1.json").read_text())["source"] == "a/1.jpg"
    assert second.save(tmp_path, overwrite=True)["json"] == tmp_path / "1.json"
    assert json.loads((tmp_path / "1.json").read_text())["source"] == "b/1.jpg"


def test_pictures_that_are_no_files_are_told_apart_by_their_pixels(tmp_path: Path) -> None:
    frames = [
        made(source=None, name="image", image=Image.new("RGB", (WIDTH, HEIGHT), (n, 0, 0))) for n in (1, 2)
    ]
    frames[0].save(tmp_path)
    with pytest.warns(UserWarning, match="written as image-2"):
        frames[1].save(tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_the_cutout_is_no_more_opaque_than_the_photo_and_has_its_colours() -> None:
    layer = Image.new("RGBA", (WIDTH, HEIGHT), (200, 60, 40, 90))
    layer.paste((1, 2, 3, 0), (0, 0, 10, HEIGHT))
    result = made(np.ones((HEIGHT, WIDTH), np.float32), layer=layer, image=Image.new("RGB", (WIDTH, HEIGHT)))
    cutout = result.cutout()
    assert cutout.getpixel((30, 20)) == (200, 60, 40, 90)
    assert cutout.getpixel((5, 20)) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="layer: found RGBA of 3x3 pixels, expected RGBA of 60x40"):
        made(layer=Image.new("RGBA", (3, 3)))
