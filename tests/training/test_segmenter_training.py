"""Training of the nano segmenter on drawn photos: it learns, and a broken run ends as an unbroken one."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from saliency_r1.errors import SaliencyError
from saliency_r1.nano.backbone import Lite
from saliency_r1.nano.segmenter_model import NanoSegmenterModel, SegmenterConfig, normalise
from saliency_r1.training.checkpoints import checkpoints
from saliency_r1.training.config import recipe_from
from saliency_r1.training.logs import read_metrics
from saliency_r1.training.run import begin
from saliency_r1.training.segmenter.loss import binary_iou, segmentation_loss
from saliency_r1.training.segmenter.recipe import SegmenterRecipe
from saliency_r1.training.segmenter.start import started
from saliency_r1.training.segmenter.train import rate_factor, train_segmenter

SYNSETS = {
    "n01": {"name": "dog", "synonyms": ["domestic dog"], "hypernyms": ["canine", "animal", "entity"]},
    "n02": {"name": "bus", "synonyms": [], "hypernyms": ["vehicle", "artifact", "entity"]},
}


@pytest.fixture(scope="module")
def drawn_duts(tmp_path_factory):
    """600 small drawn pairs in DUTS-TR's layout: 500 are held out by the split, 100 remain."""
    root = tmp_path_factory.mktemp("duts")
    images, masks = (root / "DUTS-TR" / f"DUTS-TR-{kind}" for kind in ("Image", "Mask"))
    images.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(0)
    for number in range(600):
        synset = "n01" if number % 2 else "n02"
        image = np.full((40, 48, 3), rng.integers(90, 160), np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        y, x = int(rng.integers(2, 20)), int(rng.integers(2, 26))
        image[y : y + 16, x : x + 18] = (220, 40, 40) if synset == "n01" else (40, 40, 220)
        mask[y : y + 16, x : x + 18] = 255
        Image.fromarray(image).save(images / f"{synset}_{number}.png")
        Image.fromarray(mask).save(masks / f"{synset}_{number}.png")
    (root / "synsets.json").write_text(json.dumps(SYNSETS))
    return root


@pytest.fixture
def settings(drawn_duts, tmp_path):
    return SegmenterRecipe(
        data=drawn_duts,
        output=tmp_path / "run",
        cache=drawn_duts / "cache",
        max_steps=8,
        batch_size=4,
        warmup=0.25,
        validate_every=8,
        save_every=4,
        validation_photos=6,
        workers=0,
        device="cpu",
        precision="float32",
        align_steps=20,
        width=32,
        layers=1,
        pyramid=16,
        image_size=64,
    )


def test_a_broken_run_goes_on_to_the_weights_of_an_unbroken_one(settings, tmp_path):
    whole = load_file(train_segmenter(settings) / "model.safetensors")
    broken = dataclasses.replace(settings, output=tmp_path / "broken")
    shutil.copytree(settings.output, broken.output)
    for path in checkpoints(tmp_path / "broken"):
        shutil.rmtree(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saliency_r1.training.segmenter.train.validate", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_segmenter(dataclasses.replace(broken, validate_every=6))
    (tmp_path / "broken" / ".checkpoint-6.1").mkdir()
    assert [path.name for path in checkpoints(tmp_path / "broken")] == ["checkpoint-4"]
    resumed = load_file(train_segmenter(broken, resume=True) / "model.safetensors")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def _killed(*arguments):
    raise KeyboardInterrupt


@pytest.fixture
def drawn_coco(tmp_path):
    """Ten photos of two balloons in COCO json."""
    images, annotations = [], []
    (tmp_path / "coco" / "images").mkdir(parents=True)
    for number in range(10):
        image = np.full((48, 64, 3), 120, np.uint8)
        image[8:32, 4:24] = image[20:44, 36:60] = (220, 40, 40)
        name = f"{number:03d}.png"
        Image.fromarray(image).save(tmp_path / "coco" / "images" / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        for left, top in ((4, 8), (36, 20)):
            box = [left, top, left + 20, top, left + 20, top + 24, left, top + 24]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1})
            annotations[-1] |= {"segmentation": [box], "iscrowd": 0}
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "balloon"}]}
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(content))
    return tmp_path / "coco"


def test_scenes_and_instances_go_on_from_earlier_weights_and_survive_a_kill(settings, drawn_coco, tmp_path):
    first = train_segmenter(dataclasses.replace(settings, max_steps=2, save_every=2, validate_every=2))
    more = dataclasses.replace(
        settings,
        output=tmp_path / "more",
        start=first,
        scenes=0.6,
        instances=0.3,
        pasted=0.5,
        instance_data=(drawn_coco,),
        max_steps=6,
        save_every=2,
        validate_every=6,
    )
    whole = load_file(train_segmenter(more) / "model.safetensors")
    words, grown = SegmenterConfig.load(first).words, SegmenterConfig.load(tmp_path / "more" / "final").words
    assert grown[: len(words)] == words
    assert {"leftmost", "sixth", "from", "balloon"} <= set(grown) - set(words)
    logged = read_metrics(tmp_path / "more" / "metrics.csv")
    assert [0 <= value <= 1 for _, name, value in logged if name == "validation/scenes_iou"] == [True]
    broken = dataclasses.replace(more, output=tmp_path / "broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saliency_r1.training.segmenter.train.validate", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_segmenter(dataclasses.replace(broken, validate_every=5))
    assert [path.name for path in checkpoints(tmp_path / "broken")] == ["checkpoint-2", "checkpoint-4"]
    resumed = load_file(train_segmenter(broken, resume=True) / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_it_thaws_in_stages_and_sees_small_squares_first(settings, tmp_path):
    """The first stage leaves the backbone alone, the second trains its late blocks."""
    frozen = dataclasses.replace(settings, max_steps=4, frozen_blocks=(16, 5), thaw_steps=2, average=0.0)
    staged = dataclasses.replace(frozen, early_size=32, early_share=0.5, output=tmp_path / "staged")
    sides = []
    with pytest.MonkeyPatch.context() as patch:
        encode = NanoSegmenterModel.encode

        def seen(model, pixels):
            if model.training:
                thawed = sum(block.project.weight.requires_grad for block in model.backbone.blocks)
                sides.append((pixels.shape[-1], thawed))
            return encode(model, pixels)

        patch.setattr(NanoSegmenterModel, "encode", seen)
        folder = train_segmenter(staged)
    assert sides == [(32, 0), (32, 0), (64, 11), (64, 11)]
    trained = NanoSegmenterModel.from_pretrained(folder)
    fresh = Lite()
    fresh.load_imagenet()
    moved = [
        not torch.equal(block.project.weight.half(), other.project.weight.half())
        for block, other in zip(trained.backbone.blocks, fresh.blocks, strict=True)
    ]
    assert not any(moved[:5])
    assert all(moved[5:])


def test_what_is_exported_is_the_average_over_time(settings, tmp_path):
    settings = dataclasses.replace(settings, max_steps=4, save_every=1, warmup=0.25)
    quick = load_file(train_segmenter(dataclasses.replace(settings, average=0.0)) / "model.safetensors")
    slow = dataclasses.replace(settings, average=0.999, output=tmp_path / "slow")
    averaged = load_file(train_segmenter(slow) / "model.safetensors")
    last = load_file(checkpoints(tmp_path / "slow")[-1] / "state.safetensors")
    name = "logit16.weight"
    assert torch.equal(quick[name], last[f"model.{name}"].half())
    assert not torch.equal(averaged[name], quick[name])
    assert torch.equal(averaged[name], last[f"average.module.{name}"].half())


def test_a_share_of_the_start_stays_in_what_is_exported(settings, tmp_path):
    settings = dataclasses.replace(settings, max_steps=2, save_every=2, validate_every=2)
    start = train_segmenter(settings)
    further = dataclasses.replace(settings, start=start, output=tmp_path / "further", seed=8)
    mixed = dataclasses.replace(further, start_share=0.4, output=tmp_path / "mixed")
    old, new, both = (
        load_file(folder / "model.safetensors")
        for folder in (start, train_segmenter(further), train_segmenter(mixed))
    )
    name = "logit16.weight"
    assert not torch.equal(old[name], new[name])
    for name, value in both.items():
        expected = 0.4 * old[name].float() + 0.6 * new[name].float()
        torch.testing.assert_close(value.float(), expected, rtol=2e-3, atol=1e-4)


def test_a_share_of_the_start_needs_a_start(settings):
    for change, word in (({"start_share": 0.4}, "no start"), ({"start_share": 1.0}, "less than 1")):
        with pytest.raises(ValueError, match=word):
            dataclasses.replace(settings, **change)


def test_weights_of_the_older_layout_start_a_run_and_are_refused_for_prediction(settings, tmp_path):
    folder = train_segmenter(dataclasses.replace(settings, max_steps=2, save_every=2, validate_every=2))
    older = tmp_path / "older"
    older.mkdir()
    config = json.loads((folder / "config.json").read_text())
    for key in ("finest", "backbone", "semantics_stride"):
        del config[key]
    (older / "config.json").write_text(json.dumps(config))
    finest = ("lateral2.", "down2.", "refine2.", "logit2.", "semantics.")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(finest)}
    save_file(kept, older / "model.safetensors")
    with pytest.raises(SaliencyError, match=r"layout before 0\.2\.0.*start="):
        NanoSegmenterModel.from_pretrained(older)
    model = started(older, SegmenterConfig(("extra",), image_size=96, width=32, layers=1, pyramid=16))
    assert model.config.words == (*config["words"], "extra")
    assert model.place.shape[1] == 36
    assert torch.equal(model.logit16.weight.half(), weights["logit16.weight"])
    with pytest.raises(SaliencyError, match="other sizes"):
        started(older, SegmenterConfig(("extra",), image_size=64, width=64, layers=1, pyramid=16))
    with pytest.raises(SaliencyError, match="holds no nano segmenter"):
        started(tmp_path, SegmenterConfig(()))


def test_new_words_leave_the_old_ones_as_they_were():
    model = NanoSegmenterModel(
        SegmenterConfig(("dog", "left"), image_size=64, width=32, layers=1, pyramid=16)
    )
    grown = model.with_words(["left", "leftmost", "second", "leftmost"])
    assert grown.config.words == ("dog", "left", "leftmost", "second")
    for name in ("words", "match_words"):
        old, new = getattr(model, name).weight, getattr(grown, name).weight
        assert torch.equal(new[:4], old)
        assert torch.equal(new[4], old[3])  # "leftmost" starts as "left"
        assert not any(torch.equal(new[5], row) for row in old)
    pixels = normalise(torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8))
    masks = []
    for each in (model.eval(), grown.eval()):
        numbers = torch.tensor(each.word_list.encode(["left dog"], 16))
        with torch.no_grad():
            masks.append(each.segment(each.encode(pixels), numbers).stride2)
    assert torch.equal(*masks)
    assert model.with_words(["dog"]) is model


def test_it_learns(settings):
    folder = train_segmenter(
        dataclasses.replace(settings, max_steps=60, validate_every=60, save_every=60, batch_size=8)
    )
    logged = read_metrics(folder.parent / "metrics.csv")
    assert [step for step, name, _ in logged if name == "loss"] == [50, 60]
    values = {name: value for _, name, value in logged}
    assert values["validation/iou"] > 0.4
    assert 0 <= values["validation/mae"] < 0.3
    assert json.loads((folder.parent / "recipe.json").read_text())["max_steps"] == 60
    assert list((folder.parent / "tensorboard").iterdir())


def test_one_encoding_serves_many_expressions(settings):
    model = NanoSegmenterModel(
        SegmenterConfig(("dog", "left"), image_size=64, width=32, layers=1, pyramid=16)
    )
    model.eval()
    pixels = normalise(torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8))
    words = torch.tensor(model.word_list.encode(["dog", "left dog", "zyx"], 16))
    with torch.no_grad():
        encoded = model.encode(pixels)
        together = model.segment(encoded.repeat(torch.tensor([3])), words)
        for row in range(3):
            alone = model.segment(encoded, words[row : row + 1])
            assert torch.allclose(together.stride2[row], alone.stride2[0], atol=1e-4)
            assert torch.allclose(together.quality[row], alone.quality[0], atol=1e-4)


def test_loss_prefers_the_true_mask():
    from saliency_r1.nano.segmenter_model import SegmenterOutput

    target = torch.zeros(1, 1, 64, 64)
    target[..., 16:48, 16:48] = 1

    def loss_of(mask):
        sides = (32, 16, 8, 4)
        logits = [torch.nn.functional.interpolate(mask, size=(side, side)) * 12 - 6 for side in sides]
        return segmentation_loss(SegmenterOutput(*logits, torch.zeros(1)), target)

    right, half, empty = (loss_of(mask) for mask in (target, target * (torch.arange(64) < 32), target * 0))
    assert right[0] < half[0] < empty[0]
    assert right[1].item() == 1
    assert half[1].item() == pytest.approx(0.5)


def test_iou_of_two_empty_masks_is_one():
    empty = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert binary_iou(empty, empty).item() == 1
    assert binary_iou(empty, ~empty).item() == 0


def test_rate_warms_up_and_decays_to_zero(settings):
    config = dataclasses.replace(settings, max_steps=100, warmup=0.1)
    factors = [rate_factor(step, config) for step in range(101)]
    assert factors[0] == 0.1
    assert max(factors) == factors[10] == 1.0
    assert factors[100] == pytest.approx(0)


def test_a_folder_that_is_not_duts_is_one_clear_line(settings, tmp_path):
    with pytest.raises(SaliencyError, match="expected a folder of pictures"):
        train_segmenter(dataclasses.replace(settings, data=tmp_path))


def test_a_run_in_a_used_folder_loses_nothing(settings):
    """An older run's checkpoints of higher steps are neither pruned against nor gone on from in silence."""
    brief = dataclasses.replace(settings, max_steps=2, save_every=1, validate_every=2)
    train_segmenter(dataclasses.replace(brief, max_steps=4, save_every=2))
    with pytest.raises(SaliencyError, match="holds a run already: go on with --resume, replace it with --ov"):
        train_segmenter(brief)
    assert [path.name for path in checkpoints(brief.output)] == ["checkpoint-2", "checkpoint-4"]
    train_segmenter(brief, overwrite=True)
    assert [path.name for path in checkpoints(brief.output)] == ["checkpoint-1", "checkpoint-2"]
    assert max(step for step, *_ in read_metrics(brief.output / "metrics.csv")) == 2


@pytest.mark.parametrize(
    ("able", "precision", "bfloat16", "told"),
    [
        ({"avx2": True}, "auto", False, False),
        ({"avx512_bf16": True}, "auto", True, False),
        ({"bf16": True}, "auto", True, False),
        ({"avx2": True}, "bfloat16", True, True),
        ({"avx512_bf16": True}, "bfloat16", True, False),
        ({"avx512_bf16": True}, "float32", False, False),
    ],
)
def test_bfloat16_is_chosen_where_the_processor_has_instructions_for_it(
    settings, monkeypatch, capsys, able, precision, bfloat16, told
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    recipe = dataclasses.replace(settings, precision=precision)
    assert recipe.bfloat16 is bfloat16
    begin(recipe, resume=False)
    assert ("many times slower than float32" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("out", "runs/x", "write output"),
        ("steps", 10, "write max_steps"),
        ("init", "runs/x", "write start"),
        ("bf16", True, "write precision: bfloat16"),
        ("warmup_steps", 200, "write warmup, a share of the steps"),
    ],
)
def test_keys_of_earlier_recipes_name_the_new_ones(key, value, advice):
    with pytest.raises(SaliencyError, match=f"the key '{key}' has another name now: {advice}"):
        recipe_from({"data": "DUTS", "output": "runs/x", key: value}, SegmenterRecipe, "r.yaml")
