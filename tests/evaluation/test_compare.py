"""`saliency-r1 compare` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.stats import wilcoxon

from drawn_data import draw_pairs, save
from evaluate_runs import draw_instances, run, score, score_pairs
from saliency_r1.evaluation.compare import shown_difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Fifty photos, and a folder of predictions beside."""
    draw_pairs(tmp_path / "mine", 50, predictions=tmp_path / "maps")
    return tmp_path


def blurred(root: Path, radius: int, folder: str) -> Path:
    for path in (root / "maps").iterdir():
        save(Image.open(path).filter(ImageFilter.GaussianBlur(radius)), root / folder / path.name)
    return root / folder


def against_the_first(folder: Path, method: str) -> dict[str, dict]:
    """What compare.json says of a method on its only set, by metric."""
    [of_set] = json.loads((folder / "compare.json").read_text())["sets"]
    return {one["metric"]: one for one in of_set["against_the_first"][method]}


def test_compare_two_runs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = blurred(pairs, 6, "blurred")
    assert score_pairs(pairs) == 0
    assert score(pairs, worse, pairs / "other") == 0
    capsys.readouterr()
    assert run("compare", pairs / "run", pairs / "other", "--out", pairs / "compared") == 0
    printed = capsys.readouterr().out
    assert "blurred (second) against maps (first), 50 photos of mine" in printed
    by_metric = against_the_first(pairs / "compared", "blurred")
    rows = [list(csv.DictReader((pairs / name / "per_image.csv").open())) for name in ("run", "other")]
    delta = np.array([float(b["s_measure"]) - float(a["s_measure"]) for a, b in zip(*rows, strict=True)])
    one = by_metric["s_measure"]
    assert one["difference"] == pytest.approx(delta.mean())
    assert (one["wins"], one["losses"]) == ((delta > 0).sum(), (delta < 0).sum())
    # The bootstrap's interval is near the normal one at this size.
    half = 1.96 * delta.std(ddof=1) / np.sqrt(len(delta))
    assert one["low"] == pytest.approx(delta.mean() - half, abs=0.2 * half)
    assert one["high"] == pytest.approx(delta.mean() + half, abs=0.2 * half)
    plain = wilcoxon(delta, zero_method="pratt").pvalue
    assert plain < one["p_value"] <= len(by_metric) * plain
    mae = np.array([float(b["mae"]) - float(a["mae"]) for a, b in zip(*rows, strict=True)])
    assert by_metric["mae"]["wins"] == (mae < 0).sum()  # lower is better
    page = (pairs / "compared" / "compare.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 12 * 4  # photo, truth, both predictions
    assert run("compare", pairs / "run", pairs / "other", "--out", pairs / "compared") == 2


def test_compare_a_run_with_itself(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs) == 0
    shutil.copytree(pairs / "run", pairs / "same")
    assert run("compare", pairs / "run", pairs / "same", "--out", pairs / "compared") == 0
    for one in against_the_first(pairs / "compared", "maps (same)").values():
        assert one["p_value"] == 1
        assert (one["difference"], one["low"], one["high"], one["ties"]) == (0, 0, 0, 50)


def test_compare_with_a_run_made_before_a_metric_was_there(pairs: Path) -> None:
    assert score_pairs(pairs) == 0
    shutil.copytree(pairs / "run", pairs / "older")
    summary = json.loads((pairs / "older" / "summary.json").read_text())
    for of in ("metrics", "definitions"):
        del summary[of]["boundary_iou"]
    (pairs / "older" / "summary.json").write_text(json.dumps(summary))
    for order in (("run", "older"), ("older", "run")):
        folders = [pairs / name for name in order]
        assert run("compare", *folders, "--out", pairs / "-".join(order)) == 0
        compared = against_the_first(pairs / "-".join(order), f"maps ({order[1]})")
        assert "iou" in compared
        assert "boundary_iou" not in compared


def test_methods_on_several_sets_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        draw_pairs(tmp_path / name, 12, predictions=tmp_path / "maps" / "sharp" / name)
        for path in (tmp_path / "maps" / "sharp" / name).iterdir():
            blurred = Image.open(path).filter(ImageFilter.GaussianBlur(6))
            save(blurred, tmp_path / "maps" / "soft" / name / path.name)
    # the sets differ, or they would be one
    photo = tmp_path / "second" / "masks" / "0000.png"
    save(Image.open(photo).point(lambda value: 255 - value), photo)
    data = ["--data", tmp_path / "first", "--data", tmp_path / "second", "--workers", 0]
    for method in ("soft", "sharp"):
        maps = f"{tmp_path}/maps/{method}/{{set}}"
        assert run("evaluate", "sod", *data, "--predictions", maps, "--out", tmp_path / method) == 0
    folders = [tmp_path / method / name for method in ("soft", "sharp") for name in ("first", "second")]
    out = tmp_path / "compared"
    capsys.readouterr()
    assert run("compare", *folders, "--metrics", "mae,boundary_iou", "--out", out) == 0
    printed = capsys.readouterr().out
    for name in ("first", "second"):
        assert f"sharp (second) against soft (first), 12 photos of {name}" in printed
    tex = (out / "compare.tex").read_text()
    assert r"\multicolumn{2}{c}{first} & \multicolumn{2}{c}{second} \\" in tex
    assert r"boundary IoU$\uparrow$" in tex
    assert tex.count(r"\textbf{") == 4
    assert "for 4 tests" in tex
    with (out / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 256
    found = json.loads((tmp_path / "sharp" / "first" / "summary.json").read_text())
    of_run = [line for line in lines if (line["set"], line["method"]) == ("first", "sharp")]
    assert [float(line["f"]) for line in of_run] == found["curves"]["f_curve"]
    assert max(float(line["f"]) for line in of_run) == pytest.approx(found["metrics"]["max_f"], abs=1e-6)
    assert (out / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert run("evaluate", "sod", *data, "--predictions", tmp_path / "maps", "--out", out) == 2
    assert "one path for 2 data sets" in capsys.readouterr().err
    assert run("compare", *folders, "--metrics", "maes") == 2
    assert "unknown metric 'maes'" in capsys.readouterr().err


def test_the_numbers_by_attribute(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs) == 0
    assert score(pairs, blurred(pairs, 6, "blurred"), pairs / "other") == 0
    attributes = pairs / "attributes.csv"
    attributes.write_text("name,size,dark\n0000,small,1\n0001,small,\n0002,large,0\nnone,large,1\n")
    arguments = [
        "compare",
        pairs / "run",
        pairs / "other",
        "--out",
        pairs / "out",
        "--attributes",
        attributes,
    ]
    capsys.readouterr()
    assert run(*arguments) == 0
    assert "size = small" in capsys.readouterr().out
    with (pairs / "out" / "attributes.csv").open() as file:
        lines = {(line["attribute"], line["value"], line["method"]): line for line in csv.DictReader(file)}
    assert len(lines) == 4 * 2
    with (pairs / "other" / "per_image.csv").open() as file:
        mae = {line["name"]: float(line["mae"]) for line in csv.DictReader(file)}
    small = lines["size", "small", "blurred"]
    assert small["photos"] == "2"
    assert float(small["mae"]) == pytest.approx((mae["0000"] + mae["0001"]) / 2, abs=1e-6)
    assert "size = large" in (pairs / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name\n0000\n", "one for each attribute"),
        ("name,size\n0000,small\n0000,large\n", "0000 is there twice"),
        ("name,size\n0000\n", "0000 has 1 columns, expected 2"),
        ("name,size\nnone,small\n", "of no photo of these runs"),
    ],
)
def test_attributes_that_cannot_be_used(
    pairs: Path, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_pairs(pairs) == 0
    shutil.copytree(pairs / "run", pairs / "same")
    (pairs / "a.csv").write_text(content)
    assert run("compare", pairs / "run", pairs / "same", "--attributes", pairs / "a.csv") == 2
    assert words in capsys.readouterr().err


def test_compare_instances(tmp_path: Path) -> None:
    path = draw_instances(tmp_path)
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(json.loads(path.read_text())[2:]))
    for name, given in (("a", path), ("b", fewer)):
        assert (
            run(
                "evaluate",
                "sis",
                "--data",
                tmp_path / "ILSO",
                "--predictions",
                given,
                "--out",
                tmp_path / name,
            )
            == 0
        )
    assert run("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c") == 0
    page = (tmp_path / "c" / "compare.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 4  # two photos differ


def test_runs_that_cannot_be_compared(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs) == 0
    assert run("compare", pairs / "run") == 2
    assert run("compare", pairs / "run", pairs / "none") == 2
    assert "no finished run" in capsys.readouterr().err
    other = pairs / "x"
    draw_pairs(other / "mine", 40, predictions=other / "maps")
    assert score_pairs(other) == 0
    assert run("compare", pairs / "run", other / "run") == 2
    assert "not of the same photos: 10 are in one alone" in capsys.readouterr().err
    third = pairs / "y"
    shutil.copytree(pairs / "mine", third / "mine")
    shutil.copytree(pairs / "maps", third / "maps")
    save(
        Image.open(third / "mine" / "masks" / "0000.png").point(lambda value: 255 - value),
        third / "mine" / "masks" / "0000.png",
    )
    assert score_pairs(third) == 0
    assert run("compare", pairs / "run", third / "run") == 2
    assert "different ground truth" in capsys.readouterr().err
    (third / "run" / "summary.json").write_text("{}")
    assert run("compare", pairs / "run", third / "run") == 2
    assert "not a run of" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "text"), [(-0.06, "-.0600"), (0.5, "+.5000"), (1.25, "+1.2500")])
def test_differences_have_the_style_of_other_numbers(value: float, text: str) -> None:
    assert shown_difference(value) == text
