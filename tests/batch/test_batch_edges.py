"""Sources as people have them: lists of other encodings, folders with results, names too long for masks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from saliency_r1.batch.chunk_worker import ChunkWorker, Job
from saliency_r1.batch.sources import Photo, find_photos
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.result import save_jpeg
from saliency_r1.tasks import Task


def photo() -> Image.Image:
    return Image.fromarray(data.chelsea()).resize((90, 60))


def found(*sources: object, **given: Any) -> tuple[list[Photo], str]:
    """The photos, and the line that tells what was left out."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rows = find_photos([str(source) for source in sources], **given).to_pylist()
    assert len(said) <= 1
    return [Photo(**row) for row in rows], str(said[0].message) if said else ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_any_encoding_loses_no_photo(encoding: str, end: str, tmp_path: Path) -> None:
    names = ["erste.jpg", "zweite höhe.jpg", "dritte.jpg"]
    for name in names:
        photo().save(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(end.join([*names, ""]).encode(encoding))
    photos, _ = found(tmp_path / "list.txt")
    assert [each.path for each in photos] == [str(tmp_path / name) for name in names]
    assert all(Path(each.url).is_file() for each in photos)


def test_names_that_are_no_text_are_left_out_and_told(tmp_path: Path) -> None:
    """Parquet holds text, and Linux takes names of any bytes."""
    photo().save(tmp_path / "a.jpg")
    try:
        with open(bytes(tmp_path) + b"/h\xf6he.jpg", "wb") as file:
            photo().save(file, format="JPEG")
    except OSError:
        pytest.skip("this file system takes no such names")
    (tmp_path / "list.txt").write_bytes(b"h\xf6he.jpg\na.jpg\n")
    for source in (tmp_path, tmp_path / "list.txt"):
        photos, line = found(source)
        assert [each.stem for each in photos] == ["a"]
        assert line == "pictures left out: 1 with a name that is not UTF-8 (rename them): 'h\\udcf6he.jpg'"


def test_results_and_what_cannot_be_read_are_left_out_of_folders_and_counted(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg")
    save_jpeg(photo(), tmp_path / "a_overlay.jpg")
    (tmp_path / "raw.nef").write_bytes(b"raw")
    (tmp_path / "out" / "_masks").mkdir(parents=True)
    photo().save(tmp_path / "out" / "_masks" / "a_mask.png")
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"rows")
    photos, line = found(tmp_path, out=str(tmp_path / "out"))
    assert [each.stem for each in photos] == ["a"]
    assert line.startswith("pictures left out: ")
    assert "2 written by saliency-r1 (give them by name to process them): a_mask.png, a_overlay.jpg" in line
    assert "1 of a format that is not read (convert to JPEG, PNG or TIFF): raw.nef" in line
    assert [each.stem for each in found(tmp_path / "a_overlay.jpg")[0]] == ["a_overlay"]


def test_a_mask_that_cannot_be_written_is_the_error_of_its_photo_alone(tmp_path: Path) -> None:
    pipe = SaliencyPipeline.from_pretrained()
    paths = [tmp_path / f"{name}.jpg" for name in ("a", "b" * 251, "c")]
    for path in paths:
        photo().save(path)
    job = Job(lambda: pipe, Task.SOD, False, 5, str(tmp_path / "masks"), None)
    rows = ChunkWorker(job).rows(found(*paths)[0])
    errors = [row["error"] for row in rows]
    assert errors[0] is errors[2] is None
    assert errors[1].endswith("cannot be written (File name too long)")
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a_mask.png", "c_mask.png"]


def test_photos_that_are_cut_short_are_read_if_that_is_asked(tmp_path: Path) -> None:
    pipe = SaliencyPipeline.from_pretrained()
    photo().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) * 3 // 4])
    photos, _ = found(tmp_path / "a.png")
    (refused,) = ChunkWorker(Job(lambda: pipe, Task.SOD, False, 5, None, None)).rows(photos)
    assert "cut short" in refused["error"]
    job = Job(lambda: pipe, Task.SOD, False, 5, None, None, accept_truncated=True)
    with pytest.warns(UserWarning, match="cut short"):
        (read,) = ChunkWorker(job).rows(photos)
    assert read["error"] is None
    assert [list(one["size"]) for one in read["rle"]] == [[60, 90]]
