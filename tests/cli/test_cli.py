"""The command line as a user meets it: exit codes, what stands on stdout and stderr, the files."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from processes import interruptible
from saliency_r1.cli import COMMANDS, main
from saliency_r1.photos import GROUP
from saliency_r1.wording import shown_name

HEAVY = ("torch", "transformers", "numpy", "PIL", "skimage", "scipy")


def shell(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saliency_r1", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=600,
        env={**os.environ, "COLUMNS": "100"},
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good photos of one name in two folders, and three bad files."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    Image.fromarray(data.coffee()).resize((300, 200)).save(folder / "a" / "cup.jpg")
    Image.fromarray(data.chelsea()).resize((300, 200)).save(folder / "b" / "cup.jpg")
    (folder / "text.jpg").write_text("this is not a picture")
    (folder / "cut.jpg").write_bytes((folder / "a" / "cup.jpg").read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["predict", "--help"], ["batch", "--help"], ["demo", "--help"]]
)
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from saliency_r1.cli import main
code = main({arguments!r})
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = shell("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout
    assert "130 interrupted" in done.stdout


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, saliency_r1.cli; print([n for n in {HEAVY!r} if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict"], "Missing argument"),
        (["fly"], "No such command 'fly'"),
        (["predict", "dog.jpg", "--colour"], "No such option: --colour"),
        (["predict", "dog.jpg", "--task", "depth"], "depth"),
        (["predict", "dog.jpg", "--group-images", "1"], "group-images"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert expected in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--policy", "{here}"], "no policy could be loaded from"),
        (["--policy", "{here}/nowhere"], "nowhere: no such folder, and no hub name"),
        (["--segmenter", "{here}/nowhere"], "nowhere: no such folder"),
        (["--out", "{here}/a/cup.jpg"], "cup.jpg: is a file, and results go to a folder"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_code_2(
    photos: Path, tmp_path: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option.replace("{here}", str(photos)) for option in options]
    arguments = ["predict", str(photos / "a"), "--out", str(tmp_path / "out"), *options]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert expected in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("saliency-r1: ")


def test_nothing_to_read_is_exit_code_1_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.jpg"
    assert main(["predict", str(missing), str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"saliency-r1: {missing}: ")
    assert lines[1].startswith(f"saliency-r1: {tmp_path}: ")
    assert not (tmp_path / "out").exists()


def test_bad_pictures_cost_a_line_each_and_the_others_are_done(photos: Path, tmp_path: Path) -> None:
    done = shell("predict", str(photos), str(photos / "gone.jpg"), "--out", "results", cwd=tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("saliency-r1: ")]
    assert len(errors) == 4
    for name in ("text.jpg", "cut.jpg", "empty.png", "gone.jpg"):
        assert sum(f"{photos / name}: " in line for line in errors) == 1
    assert "Traceback" not in done.stderr
    assert "nano on cpu, " in done.stderr
    assert "2 photos done, 4 failed" in done.stderr
    assert done.stdout.count("confidence") == 2

    for stem in ("a/cup", "b/cup"):
        mask = Image.open(tmp_path / "results" / f"{stem}_mask.png")
        assert (mask.mode, mask.size) == ("L", (300, 200))
        assert Image.open(tmp_path / "results" / f"{stem}_overlay.jpg").size == (300, 200)
        assert Image.open(tmp_path / "results" / f"{stem}_cutout.png").mode == "RGBA"
        line = (tmp_path / "results" / f"{stem}.json").read_text()
        assert line.count("\n") == 1
        described = json.loads(line)
        assert described["source"] == str(photos / f"{stem}.jpg")
        assert set(described["seconds"]) == {"policy", "segmenter", "writing", "total"}
        assert described["seconds"]["total"] > described["seconds"]["writing"] > 0
        assert all(shown_name(each) in done.stdout for each in described["expressions"])
    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(written) == 8


def test_two_photos_of_one_name_do_not_overwrite_each_other(photos: Path, tmp_path: Path) -> None:
    both = [str(photos / folder / "cup.jpg") for folder in ("a", "b")]
    assert main(["predict", *both, "--fast", "--out", str(tmp_path)]) == 0
    first, second = sorted(tmp_path.glob("*.json"))
    assert [json.loads(path.read_text())["source"] for path in (second, first)] == both
    assert len(list(tmp_path.iterdir())) == 8


def test_json_prints_json_lines_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    arguments = [str(photos / "a"), str(photos / "text.jpg"), str(photos / "b"), "--fast"]
    done = shell("predict", "--json", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    described = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(each["source"]).parent.name for each in described] == ["a", "b"]
    assert done.stderr.startswith(f"saliency-r1: {photos / 'text.jpg'}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

    from pycocotools import mask as coco

    for each in described:
        assert each["reasoning"] == ""
        for instance in each["instances"]:
            decoded = coco.decode(instance["segmentation"])
            assert decoded.shape == (200, 300)
            assert decoded.sum() == instance["area"]


def test_json_also_writes_if_told_where(photos: Path, tmp_path: Path) -> None:
    done = shell("predict", "--json", "--fast", str(photos / "a"), "--out", str(tmp_path))
    assert done.returncode == 0
    assert done.stderr == ""
    assert (tmp_path / "cup.json").read_text() == done.stdout


def test_only_the_chosen_kinds_are_written(photos: Path, tmp_path: Path) -> None:
    done = shell("predict", str(photos / "a"), "--fast", "--only", "json,mask", cwd=tmp_path)
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cup.json", "cup_mask.png"]
    assert "masks and JSON are in out/" in done.stderr


def test_an_unknown_kind_of_file_is_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(photos / "a"), "--only", "mask,all"]) == 2
    assert capsys.readouterr().err == (
        "saliency-r1: --only mask,all: unknown kind 'all', expected some of mask,overlay,cutout,json\n"
    )


def test_a_phrase_of_ones_own_is_found(photos: Path, tmp_path: Path) -> None:
    arguments = ["predict", "--json", str(photos / "a"), "--find"]
    cup, spoon = (
        json.loads(shell(*arguments, phrase, cwd=tmp_path).stdout) for phrase in ("the cup", "the spoon")
    )
    assert cup["expressions"] == ["the cup"]
    assert spoon["expressions"] == ["the spoon"]
    assert cup["instances"] != spoon["instances"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "sis"], "--find goes with --task sod, not with --task sis"),
        (["--policy", "nano"], "--find asks the segmenter alone"),
    ],
)
def test_a_phrase_excludes_other_options(
    photos: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos / "a"), "--find", "the cup", *options]) == 2
    assert words in capsys.readouterr().err


def test_sis_writes_a_mask_for_each_instance_and_a_legend(photos: Path, tmp_path: Path) -> None:
    done = shell(
        "predict", "--task", "sis", str(photos / "a"), str(photos / "b"), "--out", "results", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "results").glob("*.json"))
    assert len(found) == 2
    for path in found:
        described = json.loads(path.read_text())
        assert described["task"] == "sis"
        masks = sorted(path.parent.glob(f"{path.stem}_mask_*.png"))
        assert len(masks) == len(described["instances"])
        for number, one in enumerate(described["instances"], start=1):
            mask = np.asarray(Image.open(path.parent / f"{path.stem}_mask_{number}.png")) >= 128
            assert mask.sum() == one["area"] > 0
            named = shown_name(one["expression"])
            assert f"{number} → {named} ({one['score']:.2f})" in done.stdout
        overlay = Image.open(path.parent / f"{path.stem}_overlay.jpg")
        assert (overlay.height > 200) == bool(masks)


def test_cosod_is_of_all_photos_together_and_writes_a_group_sheet(photos: Path, tmp_path: Path) -> None:
    arguments = ["predict", "--task", "cosod", "--fast", str(photos / "a"), str(photos / "b"), "--out", "all"]
    done = shell(*arguments, str(photos / "text.jpg"), cwd=tmp_path)
    assert done.returncode == 1
    assert "1 failed" in done.stderr
    assert done.stderr.count("text.jpg") == 1
    described = [json.loads(path.read_text()) for path in sorted((tmp_path / "all").glob("*.json"))]
    assert len(described) == 2
    assert described[0]["expressions"] == described[1]["expressions"]
    for expression in described[0]["expressions"]:
        assert done.stdout.count(f"→ {shown_name(expression)}") == 1
    assert done.stdout.splitlines()[-1] == f"The group sheet is {Path('all', 'group_sheet.jpg')}"
    with Image.open(tmp_path / "all" / "group_sheet.jpg") as sheet:
        assert np.asarray(sheet).std() > 20


def test_a_group_of_which_nothing_can_be_read_has_no_sheet(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [str(photos / "text.jpg"), str(photos / "empty.png")]
    arguments = ["predict", "--task", "cosod", *broken, "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "sheet" not in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []


def test_the_demo_writes_a_contact_sheet_of_the_three_tasks(tmp_path: Path) -> None:
    done = shell("demo", "--fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The contact sheet is {Path('out', 'demo.jpg')}"
    with Image.open(tmp_path / "out" / "demo.jpg") as sheet:
        assert sheet.width > 1200
        assert sheet.height > 1500
        assert np.asarray(sheet).std() > 20
    names = ["astronaut", "chelsea", "coffee", "rocket", "sis/astronaut", "sis/chelsea", "sis/coffee"]
    for name in [*names, *(f"cosod/{Path(name).stem}" for name in GROUP)]:
        assert (tmp_path / "out" / f"{name}_mask.png").is_file()
        task = name.partition("/")[0] if "/" in name else "sod"
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())["task"] == task


def test_ctrl_c_ends_with_130_and_no_traceback(photos: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}.jpg").hardlink_to(photos / "a" / "cup.jpg")
    with subprocess.Popen(
        [sys.executable, "-m", "saliency_r1", "predict", "--json", str(many), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").glob(".*"))
    for path in (tmp_path / "out").glob("*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("stage", ["sft", "segmenter", "cgpo", "grpo"])
def test_training_without_its_extra_says_what_to_install(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "trl" else found(name, *rest)
    )
    assert main(["train", stage, "--config", "none.yaml"]) == 2
    assert capsys.readouterr().err == ("saliency-r1: training needs trl: pip install 'saliency-r1[train]'\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predct"], "No such command 'predct'. Did you mean 'predict'?"),
        (["data", "maks"], "Did you mean 'masks'?"),
        (["predict", "dog.jpg", "--task", "depth"], "'depth' is not one of 'sod', 'sis', 'cosod'."),
        (["evaluate", "sod", "--data", "x", "--missing", "y"], "'y' is not one of 'error', 'empty'."),
    ],
)
def test_errors_of_usage_suggest_and_leak_nothing(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "150")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Value error" not in said


def test_existing_files_are_skipped_or_said_to_be_replaced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [str(photos / "a"), str(photos / "b")]
    written = ["predict", "--fast", "--only", "mask,json", "--out", str(tmp_path)]
    assert main([*written, both[0]]) == 0
    assert "replaced" not in capsys.readouterr().err

    before = (tmp_path / "cup.json").stat().st_mtime_ns
    assert main([*written, "--skip-existing", both[0]]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"1 photo skipped: its files are in {tmp_path}/\n"
    assert (tmp_path / "cup.json").stat().st_mtime_ns == before

    (tmp_path / "cup_mask.png").unlink()  # a photo of which one file is missing is done again
    assert main([*written, "--skip-existing", both[0]]) == 0
    said = capsys.readouterr()
    assert said.out.count("confidence") == 1
    assert "files of 1 photo were replaced" in said.err.replace("\n", " ")
    assert (tmp_path / "cup_mask.png").is_file()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--json", "--skip-existing"], "--skip-existing with --json needs a folder to look in: give --out"),
        (["--task", "cosod", "--skip-existing"], "--skip-existing is not for --task cosod"),
        (["--task", "cosod"], "1 photo: cosod finds what several photos share; give two or more, or use sod"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    photos: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos / "a" / "cup.jpg"), *options]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"saliency-r1: {expected}")
    assert said.err.count("\n") == 1


def test_without_a_finished_photo_no_files_are_claimed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--fast", str(photos / "text.jpg"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    summary = capsys.readouterr().err.splitlines()[-1]
    assert summary.startswith("0 photos done, 1 failed in ")
    assert "out" not in summary
