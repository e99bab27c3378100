"""`saliency-r1 models`, and how commands take models by name."""

import json
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

import tiny_policies
import tiny_segmenters as tiny
from saliency_r1.catalogue import POLICIES, SEGMENTERS
from saliency_r1.cli import main
from saliency_r1.cli.models import cached_weights


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    policies = {name: make(root / name) for name, make in tiny_policies.FAMILIES.items()}
    return policies | tiny.save_all(root)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "cup.jpg"
    Image.fromarray(data.coffee()).resize((150, 100)).save(path)
    return path


PAIRS = list(zip(cycle(tiny_policies.FAMILIES), [model.name for model in SEGMENTERS], strict=False))


@pytest.mark.parametrize(("family", "segmenter"), PAIRS)
def test_any_policy_goes_with_any_segmenter(family, segmenter, folders, photo, tmp_path, capsys):
    models = ["--policy", str(folders[family]), "--segmenter", tiny.named(segmenter, folders)]
    options = ["--device", "cpu", "--max-pixels", "20000", "--prompting", "plain", "--out", str(tmp_path)]
    assert main(["predict", str(photo), *models, *options]) == 0
    assert "cup" in capsys.readouterr().out
    said = json.loads((tmp_path / "cup.json").read_text())
    assert said["model"].startswith(f"{family} + ")
    with Image.open(tmp_path / "cup_mask.png") as mask:
        assert (mask.size, mask.mode) == ((150, 100), "L")


def test_predict_takes_a_segmenter_by_name(folders, photo, capsys):
    arguments = ["predict", str(photo), "--json", "--fast", "--device", "cpu"]
    assert main([*arguments, "--policy", "nano", "--segmenter", f"clipseg:{folders['clipseg']}"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "nano + clipseg"
    assert main([*arguments, "--segmenter", "sam4"]) == 2
    assert "nano, clipseg, grounded-sam" in capsys.readouterr().err
    assert main([*arguments, "--segmenter", "clipseg:/no/such/folder"]) == 2
    assert "no such folder, and no hub name" in capsys.readouterr().err


def test_an_unknown_policy_lists_the_known_ones(photo, capsys):
    assert main(["predict", str(photo), "--policy", "qwen"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "known policies: nano, " in error
    for model in POLICIES:
        assert all(name in error for name in model.weights)


def test_models_lists_what_is_known(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    for model in (*POLICIES, *SEGMENTERS):
        for shown in (model.name, model.licence, *model.weights):
            assert shown in printed
    assert "7.5 / 15.0 GB" in printed  # 3.755 billion of 2 and of 4 bytes


def test_models_tells_what_is_cached(tmp_path):
    assert cached_weights(tmp_path / "none") == {}
    repo = tmp_path / "models--facebook--sam3"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert cached_weights(tmp_path) == {}
    (snapshot / "model.safetensors").write_bytes(bytes(1000))
    assert cached_weights(tmp_path) == {"facebook/sam3": 1000}
