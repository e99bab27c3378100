"""`saliency-r1 cutout` as a user meets it: files, folders, pipes, backgrounds."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_r1.cli import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    Image.fromarray(data.coffee()).resize((300, 200)).save(folder / "a" / "cup.jpg")
    Image.fromarray(data.chelsea()).resize((300, 200)).save(folder / "b" / "cup.jpg")
    return folder


def test_one_photo_becomes_one_file(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photos.parent / "new" / "cut.png"
    assert main(["cutout", str(photos / "a" / "cup.jpg"), str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert [path.name for path in out.parent.iterdir()] == ["cut.png"]
    with Image.open(out) as cut:
        assert (cut.mode, cut.size) == ("RGBA", (300, 200))
        alpha = np.asarray(cut)[..., 3]
    assert alpha[100, 150] == 255
    assert alpha[0, 0] == 0


def test_a_folder_keeps_its_tree_and_existing_outputs_can_be_skipped(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b" / "broken.jpg").write_bytes(b"no picture")
    out = photos.parent / "cut"
    assert main(["cutout", str(photos), f"{out}/", "--crop"]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert written == ["a/cup.png", "b/cup.png"]
    for name in written:
        with Image.open(out / name) as cut:
            assert cut.width < 300 or cut.height < 200
            alpha = np.asarray(cut)[..., 3] > 0
        assert all(side.any() for side in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
    (out / "a" / "cup.png").write_bytes(b"kept")
    (out / "b" / "cup.png").unlink()
    assert main(["cutout", str(photos), str(out), "--skip-existing"]) == 1
    assert "1 photo skipped: its output exists" in capsys.readouterr().err
    assert (out / "a" / "cup.png").read_bytes() == b"kept"
    assert (out / "b" / "cup.png").is_file()


def test_stdin_and_stdout_are_a_photo_and_a_png(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "saliency_r1", "cutout", "-", "-", "--background", "#ffffff"],
        input=(photos / "a" / "cup.jpg").read_bytes(),
        capture_output=True,
        timeout=600,
        check=True,
    )
    with Image.open(BytesIO(done.stdout)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (300, 200))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getpixel((150, 100)) != (255, 255, 255)


def test_a_picture_as_background_covers_the_photo(photos: Path) -> None:
    ground = photos.parent / "room.png"
    Image.new("RGB", (40, 90), (0, 90, 0)).save(ground)
    out = photos.parent / "cup.jpg"
    assert main(["cutout", str(photos / "a" / "cup.jpg"), str(out), "--background", str(ground)]) == 0
    with Image.open(out) as picture:
        assert (picture.format, picture.size) == ("JPEG", (300, 200))
        assert np.abs(np.asarray(picture)[:5, :5].astype(int) - (0, 90, 0)).max() < 12


def test_the_mask_alone_is_the_alpha_of_the_cutout(photos: Path) -> None:
    source, cut, mask = (str(photos / name) for name in ("a/cup.jpg", "cut.webp", "mask.png"))
    assert main(["cutout", source, cut]) == 0
    assert main(["cutout", source, mask, "--mask-only"]) == 0
    with Image.open(cut) as first, Image.open(mask) as second:
        assert second.mode == "L"
        assert np.array_equal(np.asarray(first)[..., 3], np.asarray(second))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a/cup.jpg"], "give the photo and where to write it"),
        (["a/cup.jpg", "cut.jpg"], "JPEG has no transparency; give a .png, or a --background"),
        (["a/cup.jpg", "cut.xyz"], "expected one of .png"),
        (["a", "cut.png"], "is one file, but there may be several photos"),
        (["a/cup.jpg", "b/cup.jpg", "cut.png"], "is one file, but there may be several photos"),
        (["a", "-"], "- as output takes one photo"),
        (["-", "a/cup.jpg", "-"], "- is one photo from stdin"),
        (["a/cup.jpg", "cut.png", "--background", "greenish"], "greenish: no such file or colour"),
        (["a/cup.jpg", "cut.png", "--mask-only", "--background", "red"], "exclude each other"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    photos: Path,
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos)
    assert main(["cutout", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert expected in printed.err
    assert printed.err.count("\n") == 1
    assert not list(photos.glob("cut*"))


def test_a_photo_that_is_not_there_is_exit_code_1(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cutout", str(photos / "gone.jpg"), str(photos / "cut.png")]) == 1
    assert "gone.jpg: no such file" in capsys.readouterr().err
