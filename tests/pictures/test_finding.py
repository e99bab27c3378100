"""Which pictures folders, globs and names give, what their files are called, and what is left out."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from saliency_r1.errors import ImageError
from saliency_r1.pictures import decoding
from saliency_r1.pictures.encoding import save_jpeg, save_picture
from saliency_r1.pictures.finding import FoundImage, find_images
from saliency_r1.pictures.own_files import is_own


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ["dog.jpg", "a/dog.jpg", "a/cat.PNG", "a/deep/dog.webp", "b/dog.jpg", "b/dog.png", "b/notes.txt"]
    for name in [*names, ".hidden.jpg", "a/.git/x.jpg", "odd[1].jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(*inputs: str | Path) -> list[tuple[str, str] | str]:
    found = find_images(inputs)
    return [(it.path.as_posix(), it.stem) if isinstance(it, FoundImage) else str(it) for it in found]


@pytest.mark.usefixtures("album")
def test_files_folders_and_globs_are_found() -> None:
    assert listed("dog.jpg") == [("dog.jpg", "dog")]
    assert listed("b/notes.txt") == [("b/notes.txt", "notes")]
    assert listed("a") == [("a/cat.PNG", "cat"), ("a/dog.jpg", "dog"), ("a/deep/dog.webp", "deep/dog")]
    assert listed("*.jpg") == [("dog.jpg", "dog"), ("odd[1].jpg", "odd[1]")]
    assert listed("*/*.jpg") == [("a/dog.jpg", "a/dog"), ("b/dog.jpg", "b/dog")]
    assert listed("a/**/dog.*") == [("a/deep/dog.webp", "deep/dog"), ("a/dog.jpg", "dog")]
    assert listed("odd[1].jpg") == [("odd[1].jpg", "odd[1]")]
    assert listed("b/n*", "b/d*.png") == ["b/n*: no picture matches", ("b/dog.png", "dog")]
    assert listed() == []


def test_absolute_paths_keep_stems_relative(album: Path) -> None:
    assert listed(album / "a" / "deep") == [(f"{album.as_posix()}/a/deep/dog.webp", "dog")]
    assert listed(f"{album}/*/cat*") == [(f"{album.as_posix()}/a/cat.PNG", "a/cat")]
    assert listed("a/../dog.jpg", "../*/dog.jpg")[0] == ("a/../dog.jpg", "dog")


@pytest.mark.usefixtures("album")
def test_equal_names_get_different_stems_and_doubles_are_done_once() -> None:
    assert listed("a/dog.jpg", "b/dog.jpg", "b/dog.png", "dog.jpg") == [
        ("a/dog.jpg", "dog"),
        ("b/dog.jpg", "dog-2"),
        ("b/dog.png", "dog-3"),
        ("dog.jpg", "dog-4"),
    ]
    assert listed("a/dog.jpg", "a", "./a/dog.jpg", "b/../a/*.jpg", "a/deep/..") == [
        ("a/dog.jpg", "dog"),
        ("a/cat.PNG", "cat"),
        ("a/deep/dog.webp", "deep/dog"),
    ]


def test_a_numbered_stem_leaves_names_that_others_have_by_nature(album: Path) -> None:
    (album / "dog-2.jpg").touch()
    (album / "b" / "DOG-3.jpg").touch()
    assert listed("a/dog.jpg", "b", "dog-2.jpg") == [
        ("a/dog.jpg", "dog"),
        ("b/DOG-3.jpg", "DOG-3"),
        ("b/dog.jpg", "dog-4"),
        ("b/dog.png", "dog-5"),
        ("dog-2.jpg", "dog-2"),
    ]


@pytest.mark.usefixtures("album")
def test_what_is_missing_stands_in_order_among_the_others() -> None:
    assert listed("gone.jpg", "dog.jpg", "none", "*.gif", "", "x" * 5000)[:5] == [
        "gone.jpg: no such file or folder",
        ("dog.jpg", "dog"),
        "none: no pictures in this folder",
        "*.gif: no picture matches",
        "'': no such file or folder",
    ]
    assert [type(it) for it in find_images(["gone.jpg", "x" * 5000])] == [ImageError, ImageError]


def test_links_are_followed_without_going_round(album: Path) -> None:
    (album / "b" / "up").symlink_to(album / "b", target_is_directory=True)
    (album / "b" / "link.jpg").symlink_to(album / "dog.jpg")
    (album / "b" / "more").symlink_to(album / "a" / "deep", target_is_directory=True)
    assert [item[1] for item in listed("b")] == ["dog", "dog-2", "link", "more/dog"]


def left_out(*inputs: str | Path, out: Path | None = None) -> tuple[list[str], str]:
    """The stems of what is found, and the one line that tells what is not."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = find_images(inputs, out=out)
    assert len(said) <= 1
    stems = [item.stem if isinstance(item, FoundImage) else str(item) for item in found]
    return stems, str(said[0].message) if said else ""


def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding.heif_opener.cache_clear()


@pytest.mark.parametrize("installed", [True, False])
def test_heic_is_found_if_it_can_be_read_and_else_counted_and_named(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:
        pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'saliency-r1[heif]'")
    else:
        without_heif(monkeypatch)
    try:
        for name in ("a.HEIC", "b.heif", "c.hif", "d.heic", "e.mpo"):
            (tmp_path / name).touch()
        stems, line = left_out(tmp_path)
        assert stems == (["a", "b", "c", "d", "e"] if installed else ["e"])
        said = "pictures left out: 4 HEIC without pillow-heif (pip install 'saliency-r1[heif]'): "
        assert line == ("" if installed else f"{said}a.HEIC, b.heif, c.hif and 1 more")
        (tmp_path / "e.mpo").unlink()
        if not installed:
            stems, line = left_out(tmp_path)
            assert stems == [f"{tmp_path}: no pictures in this folder but the 4 left out"]
            assert "a.HEIC" in line
            assert left_out(tmp_path / "a.HEIC") == (["a"], "")  # a name that is given is tried
    finally:
        monkeypatch.undo()
        decoding.heif_opener.cache_clear()


def test_pictures_of_other_formats_and_without_an_ending_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{kind}.download", format=kind)
    for name in ("raw.NEF", "raw.cr2", "design.psd", "drawing.svg", "notes.txt", "photo.xmp", ".hidden.nef"):
        (tmp_path / name).write_text("something")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    for given in (tmp_path, f"{tmp_path}/*"):
        stems, line = left_out(given)
        assert stems == ["good"]
        assert (
            "4 of a format that is not read (convert to JPEG, PNG or TIFF): design.psd, drawing.svg" in line
        )
        assert "7 without a picture's ending (give them by name): AVIF.download, " in line
        assert "notes" not in line
        assert "pipe" not in line
    assert left_out(tmp_path / "JPEG.download") == (["JPEG"], "")


def test_its_own_pictures_and_the_folder_of_results_are_left_out(tmp_path: Path) -> None:
    photo = Image.new("RGB", (8, 8))
    photo.save(tmp_path / "dog.jpg", comment="a photo")
    photo.save(tmp_path / "cat.png")
    save_jpeg(photo, tmp_path / "dog_overlay.jpg")
    save_jpeg(Image.new("RGB", (70_000, 1)), tmp_path / "long_overlay.jpg")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    photo.save(tmp_path / "out" / "deep" / "other.png")
    photo.save(tmp_path / "out" / "more.jpg")
    stems, line = left_out(tmp_path, out=tmp_path / "out")
    assert stems == ["cat", "dog"]
    assert line.startswith("pictures left out: 4 written by saliency-r1 (give them by name to process them)")
    assert left_out(tmp_path)[0] == ["cat", "dog", "out/more", "out/deep/other"]
    assert left_out(tmp_path / "out", out=tmp_path / "out")[0] == ["more", "deep/other"]  # it was asked for
    assert left_out(tmp_path / "dog_overlay.jpg") == (["dog_overlay"], "")
    assert not is_own(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("https://example.org/dog.jpg", "is an address, and files are read here; download it first"),
        ("s3://bucket/photos/", "is an address, and files are read here; download it first"),
        ("-", "standard input is not read here; give a file, a folder or a glob"),
        ("line\nbreak.jpg", "no such file or folder"),
        ("gone.jpg", "no such file or folder"),
    ],
)
def test_what_is_no_file_is_told_so(given: str, said: str) -> None:
    (error,) = find_images([given])
    assert isinstance(error, ImageError)
    assert str(error).endswith(f": {said}")
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_its_own_pictures_of_every_format_are_known(ending: str, tmp_path: Path) -> None:
    photo = Image.effect_noise((90, 60), 50).convert("RGB")
    photo.save(tmp_path / f"photo{ending}")
    save_picture(photo, tmp_path / f"own{ending}")
    assert is_own(tmp_path / f"own{ending}")
    assert not is_own(tmp_path / f"photo{ending}")
