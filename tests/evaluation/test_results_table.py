"""`saliency-r1 evaluate table` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter
from scipy.stats import wilcoxon

from drawn_data import draw_pairs, save
from evaluate_runs import run
from saliency_r1.evaluation.table.results import holm, signed_rank

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sets of twelve photos, the maps of two methods on both; `weak` is blurred."""
    for name in ("first", "second"):
        draw_pairs(tmp_path / "data" / name, 12, predictions=tmp_path / "maps" / "strong" / name)
        for path in (tmp_path / "maps" / "strong" / name).iterdir():
            soft = Image.open(path).filter(ImageFilter.GaussianBlur(6))
            save(soft, tmp_path / "maps" / "weak" / name / path.name)
    return tmp_path


def spec(root: Path, **changes: object) -> Path:
    content = {
        "task": "sod",
        "runs": str(root / "runs"),
        "sets": {name.title(): str(root / "data" / name) for name in ("first", "second")},
        "metrics": ["mae", "s_measure"],
        "methods": {
            "Weak & co": {"predictions": f"{root}/maps/weak/{{set}}"},
            "Strong": {"predictions": f"{root}/maps/strong/{{set}}"},
        },
    }
    path = root / "table.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


def small(root: Path) -> None:
    """The maps lie in folders of the sets' names as the table has them."""
    for method in ("weak", "strong"):
        for name in ("first", "second"):
            (root / "maps" / method / name).rename(root / "maps" / method / name.title())


def test_one_command_makes_the_runs_and_the_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(root)
    path = spec(root)
    assert run("evaluate", "table", path, "--run") == 0
    summary = json.loads((root / "runs" / "first" / "weak-co" / "summary.json").read_text())
    text = (root / "table.md").read_text()
    mae = f"{summary['metrics']['mae']:.3f}".removeprefix("0")
    assert f"| Weak & co | {mae}* |" in text
    assert "### MAE ↓" in text
    assert "### S ↑" in text
    assert text.count("**") == 2 * 2 * 2  # a best one for each set and metric
    assert "Missing" not in text
    tex = (root / "table.tex").read_text()
    assert r"\multicolumn{2}{c}{First} & \multicolumn{2}{c}{Second} \\" in tex
    assert r"Weak \& co & " + mae in tex
    assert r"Strong & \textbf{" in tex
    assert r"MAE$\downarrow$" in tex
    rows = [
        {row["name"]: float(row["s_measure"]) for row in csv.DictReader(file.open())}
        for file in (root / "runs" / "second" / name / "per_image.csv" for name in ("weak-co", "strong"))
    ]
    found = json.loads((root / "table.json").read_text())
    assert found["reference"] == "Strong"
    [cell] = [one for one in found["cells"] if (one["method"], one["set"]) == ("Weak & co", "Second")]
    plain = wilcoxon([rows[0][name] - rows[1][name] for name in rows[1]]).pvalue
    assert plain <= cell["p_values"]["s_measure"] <= 4 * plain + 1e-12
    assert not any(one["p_values"] for one in found["cells"] if one["method"] == "Strong")
    assert (root / "table-curves.csv").read_text().startswith("set,method,threshold,precision,recall,f,e\n")
    assert (root / "table-curves.pdf").read_bytes().startswith(b"%PDF")
    before = (root / "runs" / "first" / "strong" / "summary.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run("evaluate", "table", path, "--run") == 0  # nothing is made twice
    assert (root / "runs" / "first" / "strong" / "summary.json").stat().st_mtime_ns == before


def test_what_is_missing_is_named_with_its_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(root)
    shutil.rmtree(root / "maps" / "weak" / "Second")
    path = spec(root)
    assert run("evaluate", "table", path, "--run") == 1
    printed = capsys.readouterr()
    assert "Weak & co on Second: " in printed.err
    assert "missing: Weak & co on Second, no run in" in printed.out
    text = (root / "table.md").read_text()
    assert "| Weak & co | " in text
    assert " – |" in text
    command = (
        f"--data {root}/data/second --predictions {root}/maps/weak/Second --out {root}/runs/second/weak-co"
    )
    assert f"saliency-r1 evaluate sod {command}" in text
    assert (root / "table.tex").read_text().startswith("% missing: Weak & co on Second")
    found = json.loads((root / "table.json").read_text())
    assert len(found["cells"]) == 3
    assert [one["set"] for one in found["missing"]] == ["Second"]


def test_finished_runs_from_elsewhere_are_taken(root: Path) -> None:
    small(root)
    for name in ("first", "second"):
        given = (
            "--predictions",
            root / "maps" / "strong" / name.title(),
            "--out",
            root / "old" / name.title(),
        )
        assert run("evaluate", "sod", "--data", root / "data" / name, *given, "--workers", 0) == 0
    path = spec(root, methods={"Old": {"run": f"{root}/old/{{set}}"}})
    assert run("evaluate", "table", path, "--out", root / "paper") == 0
    text = (root / "paper" / "table.md").read_text()
    assert "| Old | **" in text
    assert "No p-values" in text


def test_runs_against_other_ground_truth_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(root)
    path = spec(root)
    assert run("evaluate", "table", path, "--run") == 0
    shutil.rmtree(root / "runs" / "first" / "weak-co")
    shutil.copytree(root / "runs" / "second" / "weak-co", root / "runs" / "first" / "weak-co")
    altered = root / "runs" / "first" / "weak-co" / "summary.json"
    content = json.loads(altered.read_text())
    altered.write_text(json.dumps(content | {"data": content["data"] | {"fingerprint": "sha256:0"}}))
    assert run("evaluate", "table", path) == 2
    assert "different ground truth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "unknown key 'method'"),
        ({"sets": {}}, "sets is {}"),
        ({"metrics": ["mea"]}, "metrics are ['mea']: choose from mae"),
        ({"reference": "Ours"}, "reference is 'Ours'"),
        ({"methods": {"a": {"model": "nano", "predictions": "maps"}}}, "give one of model and predictions"),
        ({"methods": {"a": {"predictions": "maps", "segmenter": "sam3"}}}, "a segmenter goes with a model"),
        ({"methods": {"a b": {"run": "x"}, "A-b": {"run": "y"}}}, "one folder"),
        ({"task": "sos"}, "sos"),
    ],
)
def test_a_wrong_yaml_is_one_line(
    root: Path, changes: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "table", spec(root, **changes)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_holm_and_the_signed_rank_test() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]
    assert signed_rank(np.zeros(9)) == 1
    rng = np.random.default_rng(0)
    assert signed_rank(rng.normal(0.5, 1, 200)) < 1e-6
    assert signed_rank(rng.normal(0, 1, 200)) > 0.01
