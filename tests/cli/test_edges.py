"""What people really feed the command line: odd names, full folders, other encodings, results as inputs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from saliency_r1.cli import main

LONG = "a" * 251


def photo() -> Image.Image:
    return Image.fromarray(data.chelsea()).resize((120, 80))


def shell(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "saliency_r1", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        timeout=600,
        env={**os.environ, **environment},
    )


def test_a_second_run_in_the_same_folder_does_the_same_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo().save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    assert main(["predict", ".", "--fast", "--out", "."]) == 0
    for folder in (".", "out"):
        capsys.readouterr()
        assert main(["predict", ".", "--fast", "--out", folder]) == 0
        said = capsys.readouterr()
        assert said.out.count("confidence") == 1
        assert "1 photo done" in said.err
        (line,) = [line for line in said.err.splitlines() if "left out" in line]
        assert line.startswith("saliency-r1: warning: pictures left out: 3 written by saliency-r1 (give them")
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert len(list(tmp_path.iterdir())) == 6


def test_a_name_that_is_too_long_for_its_results_costs_that_photo_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a", LONG, "z"):
        photo().save(tmp_path / "photos" / f"{name}.jpg")
    assert main(["predict", str(tmp_path / "photos"), "--fast", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    (error,) = [line for line in said.err.splitlines() if "cannot be written" in line]
    assert error.startswith("saliency-r1: ")
    assert error.endswith("(File name too long)")
    assert "2 photos done, 1 failed" in said.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["a.json", "z.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk")
def test_a_full_disk_ends_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "a.jpg")
    photo().save(tmp_path / "b.jpg")

    def full(self: object, *_: object, **__: object) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "a.jpg", "b.jpg", "--fast"]) == 2


def test_results_cannot_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo().save(tmp_path / "a.jpg")
    for out in (tmp_path / "a.jpg", tmp_path / "a.jpg" / "deep" / "er"):
        assert main(["predict", str(tmp_path / "a.jpg"), "--out", str(out)]) == 2
        assert capsys.readouterr().err == (
            f"saliency-r1: {tmp_path / 'a.jpg'}: is a file, and results go to a folder; give another --out\n"
        )


def test_the_output_survives_other_encodings(tmp_path: Path) -> None:
    photo().save(tmp_path / "kätzchen ★.jpg")
    done = shell("predict", "--fast", ".", cwd=tmp_path, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode("cp1252")
    assert text.startswith("kätzchen ?.jpg\n")
    assert "\n  -> " in text


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "shift_jis", "latin-1", "utf-8"])
def test_help_and_errors_survive_other_encodings(
    encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(["predict", "--help"]) == 0
    assert main(["predict", str(tmp_path / "gone → × ★.jpg")]) == 1
    written = []
    for stream in streams.values():
        stream.flush()
        written.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    assert "--accept-truncated" in written[0]
    signs = "→ × ★" if encoding in ("utf-8", "shift_jis") else "-> × ?" if "1" in encoding else "-> x ?"
    assert written[1] == f"saliency-r1: {tmp_path}/gone {signs}.jpg: no such file or folder\n"


def test_odd_names_are_each_printed_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["line\nbreak", "bell\x07", "\x1b[31mred", "tab\t", "back\rreturn", "%s {x} [/]"]
    (tmp_path / "in").mkdir()
    for name in names:
        photo().save(tmp_path / "in" / f"{name.replace('/', '')}.png")
        (tmp_path / "in" / f"{name.replace('/', '')}.txt.png").write_text("no picture")
    assert main(["predict", str(tmp_path / "in"), "--fast", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert len([line for line in said.err.splitlines() if "not a picture" in line]) == len(names)
    written = [json.loads(path.read_text())["name"] for path in (tmp_path / "out").glob("*.json")]
    assert sorted(written) == sorted(name.replace("/", "") for name in names)


def test_an_address_and_standard_input_are_told_apart_from_missing_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", "https://example.org/dog.jpg", "-"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "saliency-r1: https://example.org/dog.jpg: is an address, and files are read here; download it first"
    )
    assert said[1] == "saliency-r1: -: standard input is not read here; give a file, a folder or a glob"


def test_a_file_that_is_cut_short_is_read_with_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo().save(tmp_path / "cat.jpg", quality=95)
    content = (tmp_path / "cat.jpg").read_bytes()
    (tmp_path / "cat.jpg").write_bytes(content[: len(content) * 3 // 4])
    arguments = ["predict", str(tmp_path / "cat.jpg"), "--fast", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "% of the picture is there; get the whole file, or accept" in capsys.readouterr().err
    assert main([*arguments, "--accept-truncated"]) == 0
    assert "warning: " in capsys.readouterr().err


def test_a_set_of_groups_is_told_from_one_of_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "masks"):
        for group in ("cats", "dogs"):
            (tmp_path / "set" / folder / group).mkdir(parents=True)
            photo().convert("L").save(tmp_path / "set" / folder / group / "1.png")
    assert main(["evaluate", "sod", "--data", str(tmp_path / "set"), "--predictions", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds 2 folders, as a set of groups does, and no photos: cats, dogs" in said
    assert "saliency-r1 evaluate cosod" in said


def test_json_files_of_names_are_no_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    for folder in ("images", "masks"):
        (mine / folder).mkdir(parents=True)
    photo().save(mine / "images" / "mug_1.jpg")
    mask = Image.new("L", (120, 80))
    mask.paste(255, (20, 20, 60, 60))
    mask.save(mine / "masks" / "mug_1.png")
    (mine / "synsets.json").write_text('{"mug": {"name": "mug", "synonyms": ["cup"], "hypernyms": []}}')
    (mine / "groups.json").write_text('{"mug": ["mug_1"]}')
    (mine / "notes.json").write_text('{"by": "me"}')
    assert main(["data", "check", str(mine), "--workers", "0"]) == 0
    assert "nothing is wrong with its files" in capsys.readouterr().out
    (mine / "synsets.json").write_text('{"mug": "cup"}')
    from saliency_r1.data.layouts import load_splits
    from saliency_r1.errors import SaliencyError

    with pytest.raises(SaliencyError, match=r"synsets.json: expected for each name `name`, `synonyms` and"):
        load_splits(mine)
