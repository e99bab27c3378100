"""`saliency-r1 compare` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from drawn_data import draw_pairs, save
from evaluate_runs import draw_instances, run, score, score_pairs

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


def test_compare_two_runs(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = blurred(pairs, 6, "blurred")
    assert score_pairs(pairs) == 0
    assert score(pairs, worse, pairs / "other") == 0
    capsys.readouterr()
    assert run("compare", pairs / "run", pairs / "other", "--out", pairs / "compared") == 0
    printed = capsys.readouterr().out
    assert "blurred (second) against maps (first), 50 photos" in printed
    found = json.loads((pairs / "compared" / "compare.json").read_text())
    by_metric = {one["metric"]: one for one in found["against_the_first"][str(pairs / "other")]}
    rows = [list(csv.DictReader((pairs / name / "per_image.csv").open())) for name in ("run", "other")]
    delta = np.array([float(b["s_measure"]) - float(a["s_measure"]) for a, b in zip(*rows, strict=True)])
    one = by_metric["s_measure"]
    assert one["difference"] == pytest.approx(delta.mean())
    assert (one["wins"], one["losses"]) == ((delta > 0).sum(), (delta < 0).sum())
    # The bootstrap's interval is near the normal one at this size.
    half = 1.96 * delta.std(ddof=1) / np.sqrt(len(delta))
    assert one["low"] == pytest.approx(delta.mean() - half, abs=0.2 * half)
    assert one["high"] == pytest.approx(delta.mean() + half, abs=0.2 * half)
    mae = np.array([float(b["mae"]) - float(a["mae"]) for a, b in zip(*rows, strict=True)])
    assert by_metric["mae"]["wins"] == (mae < 0).sum()  # lower is better
    page = (pairs / "compared" / "compare.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 12 * 4  # photo, truth, both predictions
    assert run("compare", pairs / "run", pairs / "other", "--out", pairs / "compared") == 2


def test_compare_a_run_with_itself(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs) == 0
    shutil.copytree(pairs / "run", pairs / "same")
    assert run("compare", pairs / "run", pairs / "same", "--out", pairs / "compared") == 0
    found = json.loads((pairs / "compared" / "compare.json").read_text())
    for one in found["against_the_first"][str(pairs / "same")]:
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
        found = json.loads((pairs / "-".join(order) / "compare.json").read_text())
        compared = {one["metric"] for one in found["against_the_first"][str(folders[1])]}
        assert "iou" in compared
        assert "boundary_iou" not in compared


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
