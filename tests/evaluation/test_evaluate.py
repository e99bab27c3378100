"""`saliency-r1 evaluate` as a user meets them: numbers, files, bad input, interruption."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from drawn_data import draw_groups, draw_pairs, real_data, save
from evaluate_runs import draw_instances, run, score, score_pairs, summary
from processes import interruptible
from saliency_r1.data.duts import load_duts, split
from saliency_r1.data.mask_files import load_grey, load_mask
from saliency_r1.evaluation.runner import Request, evaluate
from saliency_r1.evaluation.sod import SodMetrics
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.tasks import Task
from stubs import PolicyStub, SegmenterStub

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OUTPUTS = {"per_image.csv", "report.html", "row.md", "row.tex", "summary.json"}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Fifty photos, and a folder of predictions beside."""
    draw_pairs(tmp_path / "mine", 50, predictions=tmp_path / "maps")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def direct(root: Path) -> dict[str, float]:
    metrics = SodMetrics()
    for mask in sorted((root / "mine" / "masks").iterdir()):
        metrics.update(load_grey(root / "maps" / mask.name), load_mask(mask))
    return metrics.compute().to_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_outputs_of_a_run(pairs: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs, workers=workers) == 0
    assert "maps on mine, 50 photos" in capsys.readouterr().out
    folder = pairs / "run"
    assert {path.name for path in folder.iterdir()} == OUTPUTS
    expected = direct(pairs)
    found = summary(folder)
    assert found["counts"]["photos"] == expected.pop("count")
    assert found["metrics"] == pytest.approx(expected, abs=1e-9)
    assert found["definitions"].keys() == expected.keys()
    assert {"python", "saliency-r1", "pysodmetrics", "pycocotools", "numpy", "pillow"} <= found[
        "versions"
    ].keys()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found["data"]["fingerprint"])
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    assert [row["name"] for row in rows] == [f"{number:04d}" for number in range(50)]
    assert np.mean([float(row["mae"]) for row in rows]) == pytest.approx(expected["mae"])
    assert f"| {expected['s_measure']:.3f}".replace("0.", ".") in (folder / "row.md").read_text()
    tex = (folder / "row.tex").read_text()
    assert tex.rstrip().endswith(r"\\")
    assert tex.count("&") == 2 * 13


def test_the_report_stands_alone(pairs: Path) -> None:
    score_pairs(pairs)
    page = (pairs / "run" / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 2 * 24 * 3  # worst and best: photo, truth, prediction
    assert "Precision and recall" in page
    assert "F-measure" in page
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 6
    for chart in charts:
        ElementTree.fromstring(chart)


def test_a_group_of_outputs_for_cosod(tmp_path: Path) -> None:
    draw_groups(
        tmp_path / "CoCA" / "image",
        tmp_path / "CoCA" / "gt",
        {"cat": 3, "dog": 4},
        tmp_path / "maps" / "CoCA",
    )
    out = tmp_path / "run"
    assert (
        run(
            "evaluate",
            "cosod",
            "--data",
            tmp_path / "CoCA",
            "--predictions",
            tmp_path / "maps/CoCA",
            "--out",
            out,
        )
        == 0
    )
    found = summary(out)
    assert found["method"]["name"] == "maps"
    assert found["groups"].keys() == {"cat", "dog"}
    assert [found["groups"][group]["count"] for group in ("cat", "dog")] == [3, 4]
    mean = (3 * found["groups"]["cat"]["mae"] + 4 * found["groups"]["dog"]["mae"]) / 7
    assert found["metrics"]["mae"] == pytest.approx(mean)
    assert "7 photos, but CoCA has 1,295 (all) in 80 groups" in found["notes"]
    page = (out / "report.html").read_text()
    assert "The groups, worst first" in page
    assert "cat/00" in page


def spoil(pairs: Path) -> None:
    """One prediction missing, one cut short, one of another size, and one of no photo."""
    maps = pairs / "maps"
    (maps / "0003.png").unlink()
    (maps / "0004.png").write_bytes((maps / "0004.png").read_bytes()[:600])
    save(Image.open(maps / "0005.png").resize((20, 20)), maps / "0005.png")
    save(Image.open(maps / "0006.png"), maps / "stranger.png")


def test_predictions_that_cannot_be_scored_are_an_error(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pairs)
    assert score_pairs(pairs) == 2
    said = capsys.readouterr().err
    assert "2 of 50 predictions cannot be scored: 0003 (missing), 0005 (20x20 pixels, expected 96x72)" in said
    assert "--missing empty" in said
    assert said.count("\n") == 1
    assert not (pairs / "run" / "summary.json").exists()


def test_a_prediction_that_cannot_be_decoded_is_an_error(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs / "maps" / "0004.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    assert score_pairs(pairs) == 2
    assert "1 of 50 predictions cannot be scored: 0004 (unreadable, " in capsys.readouterr().err
    assert not (pairs / "run" / "summary.json").exists()
    path.write_bytes(whole)
    assert score_pairs(pairs) == 0


def test_many_missing_predictions_are_counted(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        (pairs / "maps" / f"{number:04d}.png").unlink()
    assert score_pairs(pairs) == 2
    said = capsys.readouterr().err
    assert "30 of 50 predictions" in said
    assert "0009 (missing) and 20 more" in said
    assert "0010" not in said


def test_missing_as_empty_is_scored_so_and_said_everywhere(pairs: Path) -> None:
    spoil(pairs)
    assert score_pairs(pairs, "--missing", "empty") == 0
    folder = pairs / "run"
    found = summary(folder)
    assert found["counts"]["scored as empty"] == 3
    assert found["scored_as_empty"].keys() == {"0003", "0004", "0005"}
    assert found["extra_predictions"] == ["stranger.png"]
    for number in (3, 4, 5):
        mask = Image.open(pairs / "mine" / "masks" / f"{number:04d}.png")
        save(Image.new("L", mask.size), pairs / "maps" / f"{number:04d}.png")
    assert found["metrics"] == pytest.approx(
        {k: v for k, v in direct(pairs).items() if k != "count"}, abs=1e-12
    )
    note = "3 of 50 predictions were missing, unreadable or of a wrong size and were scored as empty masks"
    for name in ("report.html", "row.md", "row.tex", "summary.json"):
        assert note in (folder / name).read_text(), name
    rows = {row["name"]: row for row in csv.DictReader((folder / "per_image.csv").open())}
    assert rows["0003"]["scored_as_empty"] == "missing"
    assert rows["0002"]["scored_as_empty"] == ""


def test_a_finished_run_stays_unless_told(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_pairs(pairs) == 0
    before = contents(pairs / "run")
    assert score_pairs(pairs) == 2
    assert "--overwrite" in capsys.readouterr().err
    spoil(pairs)
    assert score_pairs(pairs, "--overwrite") == 2  # bad input: the earlier run stays even so
    assert contents(pairs / "run") == before
    assert score_pairs(pairs, "--overwrite", "--missing", "empty") == 0
    assert summary(pairs / "run")["counts"]["scored as empty"] == 3


def bad_empty_folder(root: Path) -> str:
    for path in (root / "maps").iterdir():
        path.unlink()
    return "maps: no pictures, expected the predictions"


def bad_no_folder(root: Path) -> str:
    (root / "maps").rename(root / "elsewhere")
    return "maps: no such folder"


def bad_empty_data(root: Path) -> str:
    for path in (*(root / "mine" / "images").iterdir(), *(root / "mine" / "masks").iterdir()):
        path.unlink()
    return "images: empty, expected photos"


def bad_two_predictions(root: Path) -> str:
    save(Image.open(root / "maps" / "0000.png"), root / "maps" / "0000.bmp")
    return "maps: two predictions for one stem, 0000.bmp and 0000.png"


def bad_two_masks(root: Path) -> str:
    save(Image.open(root / "mine" / "masks" / "0000.png"), root / "mine" / "masks" / "0000.bmp")
    return "masks: two masks for one stem, 0000.bmp and 0000.png"


def bad_mask(root: Path) -> str:
    (root / "mine" / "masks" / "0000.png").write_bytes(b"no picture")
    return "0000.png: cannot be read"


@pytest.mark.parametrize(
    "spoiled", [bad_empty_folder, bad_no_folder, bad_empty_data, bad_two_predictions, bad_two_masks, bad_mask]
)
def test_bad_input_is_named_and_nothing_is_written(
    spoiled, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_pairs(pairs) == 0
    before = contents(pairs / "run")
    message = spoiled(pairs)
    assert score_pairs(pairs, "--overwrite") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert contents(pairs / "run") == before


@pytest.mark.parametrize("more", [(), ("--model", "nano", "--predictions", "maps")])
def test_either_a_model_or_predictions(
    more: Sequence[str], pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "sod", "--data", pairs / "mine", *more) == 2
    assert "either --model or --predictions" in capsys.readouterr().err


def test_outputs_of_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = draw_instances(tmp_path)
    arguments = (
        "evaluate",
        "sis",
        "--data",
        tmp_path / "ILSO",
        "--predictions",
        path,
        "--out",
        tmp_path / "run",
    )
    assert run(*arguments) == 0
    found = summary(tmp_path / "run")
    assert found["metrics"] == pytest.approx(dict.fromkeys(("ap", "ap50", "ap70", "ar", "iou"), 1.0))
    assert any("score of an instance" in note for note in found["notes"])
    assert "AP70" in (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "predictions.json").read_text())[0]["image_id"] == "0000"
    before = contents(tmp_path / "run")
    path.write_text(json.dumps([{"image_id": "0099"}]))
    assert run(*arguments, "--overwrite") == 2
    assert (
        "mine.json: 1 unknown image ids: 0099; expected ids of the data, as 0000, 0001, 0002"
        in capsys.readouterr().err
    )
    assert contents(tmp_path / "run") == before


class Largest(PolicyStub):
    """A policy of one rule: it names what is brightest, and is surer of large things."""

    name = "rule"

    @property
    def answered(self) -> int:
        return sum(map(sum, self.batches))

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        tag = task.spec.tag
        why = "It is bright." if reasoning else ""
        text = f"<think>{why}</think><answer><{tag}>the bright thing</{tag}></answer>"
        share = float(np.mean([(np.asarray(image).mean(-1) > 140).mean() for image in images]))
        return PolicyOutput(text, [], None, min(1.0, 0.3 + 3 * share))


class Threshold(SegmenterStub):
    """A segmenter of one rule: what is bright."""

    name = "threshold"

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        return 1 / (1 + np.exp(-(photo.astype(np.float32).mean(-1) - 140) / 10))

    def score(self, expression: str) -> float:
        return 0.8


def bright(policy: Largest | None = None) -> SaliencyPipeline:
    return SaliencyPipeline(policy or Largest(), Threshold())


def test_a_model_is_predicted_scored_and_its_confidence_judged(pairs: Path) -> None:
    out = pairs / "run"
    request = Request(Task.SOD, pairs / "mine", out, model="rules", workers=0)
    evaluation, _ = evaluate(request, bright)
    assert {path.name for path in out.iterdir()} == OUTPUTS | {"predictions"}
    assert evaluation.metrics["iou"] > 0.6
    found = summary(out)
    assert found["method"] == {
        "name": "rules",
        "predictions": "predictions",
        "model": "rule + threshold",
        "reasoning": True,
    }
    calibration = found["calibration"]
    assert calibration["count"] == 50
    assert 0 <= calibration["ece"] <= 1
    assert len(calibration["risk"]) == len(calibration["coverage"]) == 50
    page = (out / "report.html").read_text()
    for words in ("Reliability", "Risk and coverage", "AUROC for IoU", "the bright thing", "It is bright."):
        assert words in page
    rows = list(csv.DictReader((out / "per_image.csv").open()))
    assert all(Path(row["prediction"]).is_file() for row in rows)
    assert rows[0]["expressions"] == "the bright thing"
    # What was predicted is scored the same when it is given as files.
    again = pairs / "again"
    assert score(pairs, out / "predictions", again) == 0
    assert summary(again)["metrics"] == found["metrics"]
    assert summary(again)["calibration"] == calibration
    assert summary(again)["extra_predictions"] == []


def test_a_model_without_reasoning(pairs: Path) -> None:
    _, facts = evaluate(
        Request(Task.SOD, pairs / "mine", pairs / "run", model="rules", reasoning=False, workers=0), bright
    )
    assert facts.method == "rules (fast)"
    assert "It is bright." not in (pairs / "run" / "report.html").read_text()


def test_a_model_on_groups(tmp_path: Path) -> None:
    draw_groups(tmp_path / "set" / "image", tmp_path / "set" / "gt", {"cat": 3, "dog": 4})
    evaluation, _ = evaluate(
        Request(Task.COSOD, tmp_path / "set", tmp_path / "run", model="rules", workers=0), bright
    )
    assert evaluation.groups.keys() == {"cat", "dog"}
    assert (tmp_path / "run" / "predictions" / "dog" / "03_mask.png").is_file()


def test_a_model_on_instances(tmp_path: Path) -> None:
    draw_instances(tmp_path)
    evaluation, _ = evaluate(Request(Task.SIS, tmp_path / "ILSO", tmp_path / "run", model="rules"), bright)
    assert evaluation.metrics["ap50"] is not None
    found = summary(tmp_path / "run")
    assert any("No ground truth enters it" in note for note in found["notes"])
    assert found["calibration"]["count"] == 6
    results = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert [entry["score"] for entry in results] == pytest.approx([0.8] * 6)


def test_a_model_that_was_stopped_goes_on(pairs: Path) -> None:
    class Tired(Largest):
        def respond(self, *arguments, **options):
            if self.answered >= 16:
                raise KeyboardInterrupt
            return super().respond(*arguments, **options)

    request = Request(Task.SOD, pairs / "mine", pairs / "run", model="rules", workers=0)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request, lambda: bright(Tired()))
    assert [path.name for path in (pairs / "run").iterdir()] == [".unfinished"]
    fresh = Largest()
    evaluate(request, lambda: bright(fresh))
    assert fresh.answered == 50 - 16
    evaluate(Request(Task.SOD, pairs / "mine", pairs / "whole", model="rules", workers=0), bright)
    assert summary(pairs / "run")["metrics"] == summary(pairs / "whole")["metrics"]


def children_of(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            child = int(path.parent.name)
            found += [child, *children_of(child)]
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the worker processes")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_goes_on(how: signal.Signals, tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 160, predictions=tmp_path / "maps", size=(320, 240))
    data, maps, out = tmp_path / "mine", tmp_path / "maps", tmp_path / "run"
    command = [sys.executable, "-m", "saliency_r1", "evaluate", "sod", "--workers", "2"]
    command += ["--data", str(data), "--predictions", str(maps), "--out", str(out)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=interruptible
    )
    parts = out / ".unfinished" / "parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.npz"))) < 2:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = children_of(process.pid)
    assert len(children) >= 2
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: parent and workers
    else:
        os.kill(process.pid, how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-how if how is signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert [path.name for path in out.iterdir()] == [".unfinished"]
    for part in parts.glob("*.npz"):
        np.load(part)  # no half file
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() and not _zombie(child) for child in children):
        assert time.monotonic() < deadline, "worker processes outlive the run"
        time.sleep(0.1)
    kept = len(list(parts.glob("*.npz")))
    told: list[int] = []
    request = Request(Task.SOD, data, out, predictions=maps, workers=0)
    evaluation, _ = evaluate(request, progress=lambda stage, done, total: told.append(done))
    assert told[0] == 20 * kept >= 40
    whole, _ = evaluate(Request(Task.SOD, data, tmp_path / "whole", predictions=maps, workers=0))
    assert evaluation.metrics == whole.metrics
    assert {path.name for path in out.iterdir()} == OUTPUTS


def _zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_parts_of_other_predictions_are_not_taken_over(pairs: Path) -> None:
    request = Request(Task.SOD, pairs / "mine", pairs / "run", predictions=pairs / "maps", workers=0)

    def stop(stage: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(request, progress=stop)
    save(
        Image.open(pairs / "maps" / "0001.png").point(lambda value: 255 - value), pairs / "maps" / "0001.png"
    )
    told: list[int] = []
    evaluation, _ = evaluate(request, progress=lambda stage, done, total: told.append(done))
    assert told[0] == 0
    assert evaluation.metrics["mae"] == pytest.approx(direct(pairs)["mae"])


def test_the_validation_split_of_duts(tmp_path: Path) -> None:
    """The held-out photos, and no others, are scored; the predictions are the masks themselves."""
    root = real_data("DUTS")
    _, held_out = split(load_duts(root))
    for sample in held_out:
        assert sample.mask is not None
        (tmp_path / "maps").mkdir(exist_ok=True)
        (tmp_path / "maps" / sample.mask.name).symlink_to(sample.mask)
    out = tmp_path / "run"
    assert (
        run(
            "evaluate",
            "sod",
            "--data",
            root,
            "--split",
            "validation",
            "--predictions",
            tmp_path / "maps",
            "--out",
            out,
        )
        == 0
    )
    found = summary(out)
    assert found["counts"]["photos"] == 500
    assert found["data"]["split"] == "validation"
    assert found["metrics"]["mae"] == 0
    assert found["metrics"]["iou"] == 1


def test_the_embedded_model(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 2)
    assert (
        run(
            "evaluate",
            "sod",
            "--data",
            tmp_path / "mine",
            "--model",
            "nano",
            "--fast",
            "--device",
            "cpu",
            "--out",
            tmp_path / "run",
        )
        == 0
    )
    found = summary(tmp_path / "run")
    assert found["method"]["name"] == "nano (fast)"
    assert found["calibration"]["count"] == 2
