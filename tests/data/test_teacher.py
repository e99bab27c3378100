"""Soft masks from a teacher network, with small real ONNX networks that are built here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from drawn_data import save, scene
from saliency_r1.cli import main
from saliency_r1.data.teacher.network import Scaling, Stretch, Teacher, TeacherSetting
from saliency_r1.errors import SaliencyError
from saliency_r1.pictures.finding import find_images

SIDE = 16


def build(
    path: Path,
    *,
    inputs: Sequence[tuple[str, int, list[int | str]]] = (("photo", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),),
    scale: float = 1.0,
) -> Path:
    """Write a network of two outputs: the scaled mean of the channels, and the first channel."""
    name = inputs[0][0]
    nodes = [
        helper.make_node("ReduceMean", [name, "channels"], ["grey"], keepdims=1),
        helper.make_node("Mul", ["grey", "scale"], ["mean"]),
        helper.make_node("Slice", [name, "zero", "one", "axis"], ["red"]),
    ]
    constants = [
        helper.make_tensor("channels", TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in ("mean", "red")],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


PLAIN = TeacherSetting(SIDE, (0, 0, 0), (1, 1, 1), Scaling.BYTE, 0, Stretch.NONE)
OPTIONS = [
    *("--size", str(SIDE), "--mean", "0", "0", "0", "--std", "1", "1", "1"),
    *("--scaling", "255", "--stretch", "none"),
]


def halves(left: Sequence[int], right: Sequence[int]) -> Image.Image:
    """A photo of two colours."""
    pixels = np.empty((40, 80, 3), np.uint8)
    pixels[:, :40], pixels[:, 40:] = left, right
    return Image.fromarray(pixels)


def draw_photos(root: Path) -> None:
    for number, name in enumerate(("a/dog", "b/dog", "cat")):
        save(scene(number)[0], root / f"{name}.png")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return build(tmp_path / "teacher.onnx")


def masks(*arguments: str | Path) -> int:
    return main(["data", "masks", *map(str, arguments)])


def grey(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def test_a_mask_has_the_photos_size_and_the_networks_values(teacher: Path) -> None:
    mask = Teacher(teacher, PLAIN)(halves((51, 102, 0), (255, 255, 255)))
    assert (mask.shape, mask.dtype) == ((40, 80), np.float32)
    assert mask[20, 10] == pytest.approx(0.2, abs=1e-3)
    assert mask[20, 70] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("setting", "left", "right"),
    [
        (TeacherSetting(SIDE, (0, 0, 0), (1, 1, 1), Scaling.MAX, 1, Stretch.NONE), 0.5, 1.0),
        (TeacherSetting(SIDE, (0, 0, 0), (1, 1, 1), Scaling.BYTE, 1, Stretch.NONE), 0.2, 0.4),
        (TeacherSetting(SIDE, (0.2, 0, 0), (2, 1, 1), Scaling.BYTE, 1, Stretch.NONE), 0.0, 0.1),
        (TeacherSetting(SIDE, (0, 0, 0), (1, 1, 1), Scaling.BYTE, 1, Stretch.MINMAX), 0.0, 1.0),
        (TeacherSetting(SIDE, (0.4, 0, 0), (0.1, 1, 1), Scaling.BYTE, 1, Stretch.SIGMOID), 0.1192, 0.5),
    ],
)
def test_settings(teacher: Path, setting: TeacherSetting, left: float, right: float) -> None:
    mask = Teacher(teacher, setting)(halves((51, 0, 0), (102, 0, 0)))
    # Shrinking overshoots a little at the edge in the middle, and with it the largest value.
    assert (mask[20, 2], mask[20, 77]) == (pytest.approx(left, abs=0.02), pytest.approx(right, abs=0.02))


def test_a_map_of_one_value_is_empty(teacher: Path) -> None:
    setting = TeacherSetting(SIDE, stretch=Stretch.MINMAX)
    assert not Teacher(teacher, setting)(halves((9, 9, 9), (9, 9, 9))).any()


def test_masks_of_a_folder_keep_its_tree(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photos(tmp_path / "photos")
    out = tmp_path / "out"
    assert masks(tmp_path / "photos", "--teacher", teacher, "--out", out, *OPTIONS) == 0
    assert "3 masks written" in capsys.readouterr().out
    expected = Teacher(teacher, PLAIN)
    for name in ("a/dog", "b/dog", "cat"):
        with Image.open(tmp_path / "photos" / f"{name}.png") as photo:
            np.testing.assert_array_equal(grey(out / f"{name}.png"), np.rint(expected(photo) * 255))
    assert not np.array_equal(grey(out / "a/dog.png"), grey(out / "b/dog.png"))
    # A later call on a folder above does not take the masks for photos.
    assert [item.stem for item in find_images([tmp_path])] == [
        f"photos/{n}" for n in ("cat", "a/dog", "b/dog")
    ]
    record = json.loads((out / "teacher.json").read_text())
    assert record["sha256"] == hashlib.sha256(teacher.read_bytes()).hexdigest()
    assert (record["teacher"], record["size"], record["scaling"]) == ("teacher.onnx", SIDE, "255")
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        "cat.png",
        "dog.png",
        "dog.png",
        "teacher.json",
    ]


def test_resume_makes_what_is_left_alone(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photos(tmp_path / "photos")
    out = tmp_path / "out"
    call = (tmp_path / "photos", "--teacher", teacher, "--out", out, *OPTIONS)
    assert masks(*call) == 0
    whole = grey(out / "cat.png")
    (out / "cat.png").unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("dog.png")}
    assert masks(*call) == 2
    assert "holds masks already: continue with --resume" in capsys.readouterr().err
    assert not (out / "cat.png").exists()
    assert masks(*call, "--resume") == 0
    assert "1 masks written, 2 existed already" in capsys.readouterr().out
    np.testing.assert_array_equal(grey(out / "cat.png"), whole)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("dog.png")} == kept


def test_resume_with_another_setting_or_teacher_is_refused(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photos(tmp_path / "photos")
    call = (tmp_path / "photos", "--out", tmp_path / "out", *OPTIONS, "--resume", "--teacher")
    assert masks(*call, teacher) == 0
    assert masks(*call, teacher, "--output", "1") == 2
    assert "output was 0, is now 1" in capsys.readouterr().err
    other = build(tmp_path / "other.onnx", scale=0.5)
    assert masks(*call, other) == 2
    assert "sha256 was" in capsys.readouterr().err
    renamed = teacher.rename(tmp_path / "renamed.onnx")
    assert masks(*call, renamed) == 0


def test_a_broken_photo_costs_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photos(tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    assert masks(tmp_path / "photos", "--teacher", teacher, "--out", tmp_path / "out", *OPTIONS) == 1
    said = capsys.readouterr()
    assert "3 masks written, 1 failed" in said.out
    assert said.err.count("\n") == 1
    assert "broken.jpg: not a picture" in said.err
    assert masks(tmp_path / "none", "--teacher", teacher, "--out", tmp_path / "none-out", *OPTIONS) == 1


def bad_teachers(root: Path) -> dict[str, tuple[Path, str]]:
    text, cut = root / "text.onnx", root / "cut.onnx"
    text.write_text("weights\n" * 100)
    cut.write_bytes(build(root / "whole.onnx").read_bytes()[:-40])
    f32, side = TensorProto.FLOAT, SIDE
    return {
        "none": (root / "none.onnx", "no such file"),
        "text": (text, "not an ONNX network"),
        "cut": (cut, "not an ONNX network"),
        "folder": (root, "no such file"),
        "one channel": (
            build(root / "1.onnx", inputs=[("photo", f32, [1, 1, side, side])]),
            "(1, 1, 16, 16), expected one float32 input (1, 3, 16, 16)",
        ),
        "another size": (build(root / "2.onnx", inputs=[("photo", f32, [1, 3, 32, 32])]), "(1, 3, 32, 32)"),
        "bytes": (
            build(root / "3.onnx", inputs=[("photo", TensorProto.DOUBLE, [1, 3, side, side])], scale=1),
            "",
        ),
        "two inputs": (
            build(root / "4.onnx", inputs=[("photo", f32, [1, 3, side, side]), ("depth", f32, [1])]),
            "has 2 inputs (photo, depth)",
        ),
    }


@pytest.mark.parametrize(
    "kind", ["none", "text", "cut", "folder", "one channel", "another size", "bytes", "two inputs"]
)
def test_what_is_no_teacher(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_photos(tmp_path / "photos")
    path, expected = bad_teachers(tmp_path)[kind]
    out = tmp_path / "out"
    assert masks(tmp_path / "photos", "--teacher", path, "--out", out, *OPTIONS) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(path) in said
    assert expected in said
    assert not out.exists()


def test_outputs_that_are_no_map(tmp_path: Path) -> None:
    free = build(tmp_path / "free.onnx", inputs=[("photo", TensorProto.FLOAT, ["n", 3, "h", "w"])])
    assert Teacher(free, PLAIN)(halves((0, 0, 0), (255, 255, 255))).shape == (40, 80)
    with pytest.raises(SaliencyError, match="has 2 outputs, got output 2; expected 0 to 1"):
        Teacher(free, TeacherSetting(SIDE, output=2))
    several = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["photo"], ["same"])],
            "three channels",
            [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(several, tmp_path / "several.onnx")
    with pytest.raises(SaliencyError, match=r"\(1, 3, 16, 16\), expected one map"):
        Teacher(tmp_path / "several.onnx", PLAIN)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"output": -1}, {"std": (1, 0, 1)}])
def test_settings_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(SaliencyError, match="expected"):
        TeacherSetting(**wrong)
