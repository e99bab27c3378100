"""Evaluation of masks and predictions as people keep them: right numbers, or a stop that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_data import save, scene
from evaluate_runs import score_pairs, summary
from saliency_r1.cli import main
from saliency_r1.data.checking import Fault, check_data
from saliency_r1.data.mask_files import Doubt, MaskValues, load_grey, load_mask, read_mask
from saliency_r1.errors import ImageError
from saliency_r1.images import load_image

COUNT = 6
Kept = Callable[[np.ndarray, Path], None]


def object_of(number: int) -> np.ndarray:
    return np.asarray(scene(number)[1]) > 127


def zero_and_one(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside.astype(np.uint8)), path)


def low(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside.astype(np.uint8) * np.uint8(100)), path)


def palette(inside: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(inside.astype(np.uint8))
    picture.putpalette([0, 0, 0, 128, 0, 0])
    save(picture, path)


def bright_palette(inside: np.ndarray, path: Path) -> None:
    """Masks of two classes, one bright and one dark."""
    index = inside.astype(np.uint8) * (1 + (np.arange(inside.shape[1]) % 2).astype(np.uint8))
    picture = Image.fromarray(index)
    picture.putpalette([0, 0, 0, 128, 0, 0, 192, 224, 192])
    save(picture, path)


def colours(inside: np.ndarray, path: Path) -> None:
    """Classes in RGB, one of them dark."""
    index = inside.astype(np.uint8) * (1 + (np.arange(inside.shape[1]) % 2).astype(np.uint8))
    save(Image.fromarray(np.array([[0, 0, 0], [220, 20, 20], [40, 230, 40]], np.uint8)[index]), path)


def alpha_of_black(inside: np.ndarray, path: Path) -> None:
    picture = Image.new("RGBA", inside.shape[::-1])
    picture.putalpha(Image.fromarray(inside).convert("L"))
    save(picture, path)


def alpha_of_white(inside: np.ndarray, path: Path) -> None:
    picture = Image.new("LA", inside.shape[::-1], (255, 0))
    picture.putalpha(Image.fromarray(inside).convert("L"))
    save(picture, path)


def white(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside).convert("L"), path)


def floats(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside.astype(np.float32) * 0.8), path.with_suffix(".tif"))


def wide_floats(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside.astype(np.float32) * 900 - 450), path.with_suffix(".tif"))


def deep(inside: np.ndarray, path: Path) -> None:
    save(Image.fromarray(inside.astype(np.uint16) * np.uint16(50_000)), path)


def array(inside: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_suffix(".npy"), inside.astype(np.float32)[None] * 0.9)


def grey_palette(inside: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(inside.astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    save(picture, path)


def write(root: Path, masks: Kept, predictions: Kept) -> None:
    for number in range(COUNT):
        save(scene(number)[0], root / "mine" / "images" / f"{number}.jpg")
        masks(object_of(number), root / "mine" / "masks" / f"{number}.png")
        predictions(object_of(number), root / "maps" / f"{number}.png")


DOUBTFUL = [
    (zero_and_one, "hold 0 and 1, and an object begins above 127", "nonzero", Fault.LOW),
    (low, "hold values, but none above 127, where an object begins", "nonzero", Fault.LOW),
    (palette, "are in colours (palettes, often), which stand for classes", "nonzero", Fault.COLOURS),
    (bright_palette, "are in colours (palettes, often), which stand for classes", "nonzero", Fault.COLOURS),
    (colours, "are in colours (palettes, often), which stand for classes", "nonzero", Fault.COLOURS),
    (alpha_of_black, "have an alpha channel that tells another object", "alpha", Fault.ALPHA),
    (alpha_of_white, "have an alpha channel that tells another object", "alpha", Fault.ALPHA),
]


@pytest.mark.parametrize(("kept", "cause", "option", "fault"), DOUBTFUL)
def test_masks_that_would_give_wrong_numbers_stop_it_with_the_option_that_settles_it(
    kept: Kept, cause: str, option: str, fault: Fault, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, kept, white)
    assert score_pairs(tmp_path) == 2
    said = capsys.readouterr().err
    assert f"{COUNT} of {COUNT} masks {cause}" in said
    assert f"--mask-values {option}, or, if brightness is right, with --mask-values grey" in said
    assert not (tmp_path / "run" / "summary.json").exists()
    assert score_pairs(tmp_path, "--mask-values", option) == 0
    assert summary(tmp_path / "run")["metrics"]["iou"] == pytest.approx(1.0)
    for name in ("row.md", "row.tex", "summary.json", "report.html"):
        assert f"(--mask-values {option})" in (tmp_path / "run" / name).read_text()
    assert score_pairs(tmp_path, "--mask-values", "grey", "--overwrite") == 0
    assert summary(tmp_path / "run")["metrics"]["iou"] < 0.7

    checked = check_data(tmp_path / "mine")
    assert {finding.fault for finding in checked.findings} == {fault}
    assert not checked.good
    assert f"--mask-values {option}" in fault.fix
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "mine"), "--workers", "0"]) == 1
    assert f"{COUNT} × {fault.value}" in capsys.readouterr().out


def test_a_few_such_masks_are_said_beside_the_numbers(tmp_path: Path) -> None:
    write(tmp_path, white, white)
    zero_and_one(object_of(0), tmp_path / "mine" / "masks" / "0.png")
    assert score_pairs(tmp_path) == 0
    said = (
        f"1 of {COUNT} masks hold 0 and 1, and an object begins above 127; they were read by their brightness"
    )
    assert any(note.startswith(said) for note in summary(tmp_path / "run")["notes"])
    assert said in (tmp_path / "run" / "row.md").read_text()
    assert check_data(tmp_path / "mine").good


@pytest.mark.parametrize("kept", [floats, wide_floats, deep, array, grey_palette, white])
@pytest.mark.parametrize("workers", [0])
def test_right_predictions_score_one_however_they_are_kept(kept: Kept, workers: int, tmp_path: Path) -> None:
    write(tmp_path, grey_palette, kept)
    assert score_pairs(tmp_path, workers=workers) == 0
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics["iou"] == pytest.approx(1.0)
    assert metrics["mae"] < 0.01


@pytest.mark.parametrize(
    ("kept", "option"),
    [(zero_and_one, "nonzero"), (palette, "nonzero"), (alpha_of_black, "alpha")],
)
def test_predictions_that_would_give_wrong_numbers_stop_it_too(
    kept: Kept, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, white, kept)
    assert score_pairs(tmp_path) == 2
    assert f"--prediction-values {option}, or, if" in capsys.readouterr().err
    assert score_pairs(tmp_path, "--prediction-values", option) == 0
    assert summary(tmp_path / "run")["metrics"]["iou"] == pytest.approx(1.0)


def test_predictions_that_are_unsure_of_all_are_no_reason_to_stop(tmp_path: Path) -> None:
    write(tmp_path, white, low)
    assert score_pairs(tmp_path) == 0
    assert summary(tmp_path / "run")["metrics"]["iou"] == 0.0
    assert summary(tmp_path / "run")["metrics"]["iou_stretched"] == pytest.approx(1.0)


def test_predictions_of_another_size_are_resized_only_if_asked_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, white, white)
    for number in (0, 1):
        path = tmp_path / "maps" / f"{number}.png"
        with Image.open(path) as opened:
            small = opened.resize((opened.width // 2, opened.height // 2), Image.Resampling.BILINEAR)
        small.save(path)
    assert score_pairs(tmp_path) == 2
    assert "resize them to their masks with --resize-predictions" in capsys.readouterr().err
    assert score_pairs(tmp_path, "--resize-predictions") == 0
    found = summary(tmp_path / "run")
    assert found["metrics"]["iou"] > 0.9
    said = f"2 of {COUNT} predictions had another size and were resized to their masks' (bilinear, --resize-"
    assert any(note.startswith(said) for note in found["notes"])
    assert found["counts"]["resized predictions"] == 2
    for name in ("row.md", "row.tex", "report.html"):
        assert "--resize-predictions" in (tmp_path / "run" / name).read_text()
    assert "--resize-predictions" in capsys.readouterr().err


def test_numbers_of_masks_read_otherwise_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, zero_and_one, white)
    for values in ("nonzero", "grey"):
        given = ["--data", tmp_path / "mine", "--predictions", tmp_path / "maps", "--workers", 0]
        arguments = ["evaluate", "sod", *given, "--mask-values", values, "--out", tmp_path / values]
        assert main([str(each) for each in arguments]) == 0
    prints = [json.loads((tmp_path / each / "summary.json").read_text()) for each in ("nonzero", "grey")]
    assert prints[0]["data"]["fingerprint"] != prints[1]["data"]["fingerprint"]


@pytest.mark.parametrize("scale", [200, 255, 1000, 9000, 65535])
def test_prediction_and_evaluation_scale_deep_grey_alike(scale: int, tmp_path: Path) -> None:
    ramp = np.linspace(0, scale, 300).round().astype(np.uint16).reshape(15, 20)
    save(Image.fromarray(ramp), tmp_path / "deep.png")
    grey = load_grey(tmp_path / "deep.png")
    assert np.array_equal(grey, np.asarray(load_image(tmp_path / "deep.png"))[:, :, 0])
    np.save(tmp_path / "deep.npy", ramp)
    assert np.array_equal(grey, load_grey(tmp_path / "deep.npy"))


@pytest.mark.parametrize("factor", [1.0, 255.0, 3000.0])
def test_prediction_and_evaluation_scale_floats_alike(factor: float, tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 300, dtype=np.float32).reshape(15, 20) * np.float32(factor)
    save(Image.fromarray(ramp), tmp_path / "floats.tif")
    grey = load_grey(tmp_path / "floats.tif")
    assert np.array_equal(grey, np.asarray(load_image(tmp_path / "floats.tif"))[:, :, 0])
    assert (grey[0, 0], grey[-1, -1]) == (0, 255)
    for path in (tmp_path / "nan.tif", tmp_path / "nan.npy"):
        broken = ramp.copy()
        broken[3, 4] = np.nan
        save(Image.fromarray(broken), path) if path.suffix == ".tif" else np.save(path, broken)
        with pytest.raises(ImageError) as said:
            load_grey(path)
        assert str(said.value) == (
            f"{path}: cannot be read as a mask (holds NaN or infinity, expected finite values)"
        )


def test_arrays_of_other_shapes_and_of_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((4, 5, 3)))
    with pytest.raises(ImageError, match=r"three.npy: cannot be read as a mask \(shape \(4, 5, 3\)"):
        load_grey(tmp_path / "three.npy")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ImageError, match=r"pickle.npy: cannot be read as a mask"):
        load_grey(tmp_path / "pickle.npy")


def test_what_tells_the_object(tmp_path: Path) -> None:
    inside = object_of(0)
    palette(inside, tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png").doubt is Doubt.COLOURS
    assert np.array_equal(load_mask(tmp_path / "palette.png", values=MaskValues.NONZERO), inside)
    with pytest.raises(ImageError, match="has no alpha that tells an object; read it as grey or nonzero"):
        load_mask(tmp_path / "palette.png", values=MaskValues.ALPHA)
    alpha_of_white(inside, tmp_path / "alpha.png")
    assert np.array_equal(load_mask(tmp_path / "alpha.png", values=MaskValues.ALPHA), inside)
    white(np.zeros_like(inside), tmp_path / "empty.png")
    assert read_mask(tmp_path / "empty.png").doubt is None


def test_a_run_cannot_go_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, white, white)
    (tmp_path / "run").write_text("a file")
    assert score_pairs(tmp_path) == 2
    assert "run: is a file, and results go to a folder; give another --out" in capsys.readouterr().err


def test_grey_masks_that_were_saved_in_colour_are_not_doubted(tmp_path: Path) -> None:
    """With the noise and the soft edges of JPEG."""
    picture = Image.fromarray(object_of(0)).convert("L").convert("RGB")
    for name, options in (("a.png", {}), ("b.jpg", {"quality": 40}), ("c.webp", {"quality": 30})):
        picture.save(tmp_path / name, **options)
        assert read_mask(tmp_path / name).doubt is None, name


def test_masks_have_the_limit_of_photos(tmp_path: Path) -> None:
    wide = Image.new("1", (10_001, 10_000))
    wide.save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match=r"are 100.0 megapixels, the limit is 100\)"):
        load_grey(tmp_path / "wide.png")
