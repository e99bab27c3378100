"""Segmenters by name: which there are, and weights that cannot or must not be loaded."""

import json
from functools import partial
from pathlib import Path

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from safetensors.torch import load_file, save_file
from transformers.integrations import deepspeed

import tiny_segmenters as tiny
from saliency_r1 import checkpoint
from saliency_r1.catalogue import SEGMENTERS
from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.evf_sam import segmenter as evf_sam
from saliency_r1.segmenters.load_segmenter import load_segmenter, parse_segmenter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny.save_all(tmp_path_factory.mktemp("weights"))


def one_line(call, match: str) -> None:
    with pytest.raises(SaliencyError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_segmenter_is_whole_while_zero_3_trains_a_policy(folders):
    """Transformers would cut every model that is loaded meanwhile over the processes."""
    trained = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    deepspeed.set_hf_deepspeed_config(trained)
    try:
        segmenter = load_segmenter(f"clipseg:{folders['clipseg']}", "cpu")
        assert all(weight.numel() for weight in segmenter.model.parameters())
        assert deepspeed.is_deepspeed_zero3_enabled()  # for the policy, all the same
    finally:
        deepspeed.unset_hf_deepspeed_config()


# Names.


def test_names_and_weights():
    assert parse_segmenter(None) == parse_segmenter("nano") == ("nano", ())
    assert parse_segmenter("sam3") == ("sam3", ("facebook/sam3",))
    assert parse_segmenter("clipseg:someone/other") == ("clipseg", ("someone/other",))
    assert parse_segmenter("grounded-sam2:a/b,c/d") == ("grounded-sam2", ("a/b", "c/d"))
    for model in SEGMENTERS:
        assert parse_segmenter(model.name)[1] == model.weights


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sam4", "sam4: no such folder, .*nano, clipseg, grounded-sam, grounded-sam2, sam3, evf-sam"),
        ("grounded-sam:a/b", "expected grounded-sam:DETECTOR,SAM"),
        ("grounded-sam:a/b,", "expected grounded-sam:DETECTOR,SAM"),
        ("clipseg:", "expected clipseg:WEIGHTS"),
        ("nano:no/such", "no/such: no such folder, expected one with a nano segmenter"),
    ],
)
def test_unknown_names_list_the_known_ones(text, match):
    one_line(lambda: load_segmenter(text, "cpu"), match)


@pytest.mark.parametrize("name", ["clipseg", "sam3", "evf-sam"])
def test_a_folder_of_another_kind_is_told_how_to_be_named(name, folders):
    folder = folders[name]
    one_line(lambda: load_segmenter(str(folder), "cpu"), f"put its kind before it, NAME:{folder}, .*{name}")


def test_the_nano_segmenter_has_one_dtype():
    one_line(lambda: load_segmenter("nano", "cpu", "bfloat16"), "runs in float32")


# Weights that are refused.


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


CASES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("?"), "config.json is not JSON"),
    "another model": (
        lambda folder: edit(folder / "config.json", model_type="bert"),
        "model_type 'bert': .* have '",
    ),
    "code": (
        lambda folder: edit(folder / "config.json", auto_map={"AutoModel": "own.Model"}),
        r"asks for code of its own \(own.Model\)",
    ),
    "no processor": (
        lambda folder: [file.unlink() for file in folder.glob("*processor_config.json")],
        "has no processor",
    ),
    "pickled": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pickled weights .* are never read",
    ),
    "broken": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"broken"),
        "no .* model that can be read",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["clipseg", "grounded-sam", "sam3"])
def test_weights_that_cannot_or_must_not_be_loaded(name, case, folders, tmp_path):
    change, match = CASES[case]
    own = "dino" if name == "grounded-sam" else name
    broken = folders | {own: copied(folders[own], tmp_path / "broken")}
    change(broken[own])
    one_line(lambda: tiny.load(name, broken), match)


def test_weights_that_lack_tensors_are_refused(folders, tmp_path):
    folder = copied(folders["clipseg"], tmp_path / "clipseg")
    state = load_file(folder / "model.safetensors")
    del state["decoder.film_mul.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    one_line(lambda: load_segmenter(f"clipseg:{folder}", "cpu"), "lacks 1 tensors .*film_mul.weight")


@pytest.mark.parametrize("name", ["clipseg", "dino", "sam3"])
def test_a_folder_without_tokenizer_is_refused(name, folders, tmp_path):
    broken = folders | {name: copied(folders[name], tmp_path / name)}
    (broken[name] / "tokenizer.json").unlink()
    one_line(lambda: tiny.load("grounded-sam" if name == "dino" else name, broken), "has no tokenizer")


def test_a_hub_that_gives_nothing_is_one_clear_line(monkeypatch):
    def nothing(*_, **__):
        raise OSError("the network is away\nand far")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    one_line(lambda: load_segmenter("sam3", "cpu"), "no SAM 3 weights in 'facebook/sam3': .*away and far")


def test_unknown_dtypes_and_devices_are_refused(folders):
    one_line(partial(load_segmenter, f"clipseg:{folders['clipseg']}", "cpu", "int8"), "unknown dtype 'int8'")
    one_line(partial(load_segmenter, f"clipseg:{folders['clipseg']}", "abacus"), "unknown device 'abacus'")


def test_a_missing_package_names_the_extra(folders, tmp_path, monkeypatch):
    folder = copied(folders["evf-sam"], tmp_path / "evf")
    (folder / "tokenizer.json").unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"")
    monkeypatch.setattr(evf_sam, "_importable", lambda name: name != "sentencepiece")
    one_line(
        lambda: load_segmenter(f"evf-sam:{folder}", "cpu"), r"needs sentencepiece: .*saliency-r1\[evf-sam\]"
    )


def test_an_index_cannot_lead_out_of_its_folder(tmp_path):
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert checkpoint.weight_files(tmp_path) == [tmp_path / "secret.safetensors"]
