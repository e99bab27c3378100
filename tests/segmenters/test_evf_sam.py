"""EVF-SAM as a segmenter, with weights made here."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.segmenters.evf_sam.segmenter import (
    PIXEL_MEAN,
    PIXEL_STD,
    EvfSamSegmenter,
    beit3_pixels,
    sam_pixels,
)
from saliency_r1.segmenters.load_segmenter import load_segmenter, parse_segmenter
from tiny_evf_sam import BEIT3, SAM, TEXTS, random_model, save_weights, sizes_of, tokenizer_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("evf") / "tiny", random_model(), sizes_of())


@pytest.fixture(scope="module")
def segmenter(weights):
    return EvfSamSegmenter.from_pretrained(str(weights), device="cpu")


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.coffee()).resize((150, 100))


def test_it_is_a_segmenter_named_after_its_weights(segmenter):
    assert isinstance(segmenter, Segmenter)
    assert segmenter.name == "tiny"


def test_masks_have_the_photo_s_size_and_are_the_network_s(segmenter, photo):
    found = segmenter.segment(segmenter.encode(photo), TEXTS[:1])
    assert found.probabilities.shape == (1, photo.height, photo.width)
    assert found.probabilities.dtype == found.scores.dtype == np.float32
    images, resized = sam_pixels(photo, 128)
    ids = segmenter.tokenizer(list(TEXTS[:1]), return_tensors="pt").input_ids
    assert ids[0, 0] == 0
    assert ids[0, -1] == 2
    with torch.inference_mode():
        steps = segmenter.model(
            images, beit3_pixels(photo, 64), ids, resized=resized, original=(photo.height, photo.width)
        )
    assert np.abs(found.probabilities[0] - steps.logits[0].sigmoid().numpy()).max() < 1e-5
    assert found.scores[0] == pytest.approx(steps.iou[0, 0].clamp(0, 1).item(), abs=1e-5)
    assert found.probabilities.std() > 1e-3


def test_many_expressions_equal_one_at_a_time(segmenter, photo):
    encoded = segmenter.encode(photo)
    together = segmenter.segment(encoded, TEXTS)
    for index, text in enumerate(TEXTS):
        alone = segmenter.segment(encoded, [text])
        assert np.abs(together.probabilities[index] - alone.probabilities[0]).max() < 1e-4
        assert abs(together.scores[index] - alone.scores[0]) < 1e-4
    assert np.abs(together.probabilities[0] - together.probabilities[1]).max() > 1e-3


def test_no_expression_gives_no_mask(segmenter, photo):
    found = segmenter.segment(segmenter.encode(photo), [])
    assert found.probabilities.shape == (0, photo.height, photo.width)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (900, 2)])
def test_odd_sizes(segmenter, size):
    image = Image.new("RGB", size, (10, 200, 30))
    found = segmenter.segment(segmenter.encode(image), ["the dog", ""])
    assert found.probabilities.shape == (2, size[1], size[0])
    assert np.isfinite(found.probabilities).all()


def test_a_text_beyond_the_longest_is_cut(segmenter, photo):
    encoded = segmenter.encode(photo)
    long, longer = (segmenter.segment(encoded, ["dog " * count]).probabilities for count in (26, 400))
    assert np.abs(long - longer).max() < 1e-4


def test_the_semantic_prefix_is_read(weights, segmenter, photo):
    encoded = segmenter.encode(photo)
    prefixed = segmenter.segment(encoded, ["[semantic] the cat"]).probabilities
    plain = segmenter.segment(encoded, ["the cat"]).probabilities
    assert np.abs(plain - prefixed).max() > 1e-3
    for option, region, instance in (
        ("", plain, plain),
        (",semantic=off", plain, plain),
        (",semantic=on", prefixed, prefixed),
        (",semantic=auto", prefixed, plain),
    ):
        asked = load_segmenter(f"evf-sam:{weights}{option}", device="cpu")
        assert np.array_equal(asked.segment(encoded, ["the cat"]).probabilities, region)
        assert np.array_equal(asked.segment(encoded, ["the cat"], instances=True).probabilities, instance)
    assert parse_segmenter("evf-sam,semantic=auto") == ("evf-sam", ("YxZhang/evf-sam-multitask",))
    one_line(lambda: load_segmenter("evf-sam,semantic=maybe"), "semantic is an option of evf-sam, one of off")
    one_line(lambda: load_segmenter("sam3,semantic=on"), "semantic is an option of evf-sam")


def test_half_precision_stays_near(weights, segmenter, photo):
    half = EvfSamSegmenter.from_pretrained(str(weights), device="cpu", dtype="bfloat16")
    assert half.model.sam.dtype == torch.bfloat16
    found = half.segment(half.encode(photo), TEXTS).probabilities
    exact = segmenter.segment(segmenter.encode(photo), TEXTS).probabilities
    assert found.dtype == np.float32
    assert np.abs(found - exact).mean() < 0.05


def test_eight_expressions_cost_far_less_than_eight_calls(tmp_path, photo):
    """SAM's encoder to BEiT-3 as 32 layers to 24, and over more tokens, as in the published model."""
    beit3 = replace(BEIT3, encoder_layers=12)
    sam = replace(SAM, image_size=256, encoder_embed_dim=80, encoder_depth=16, encoder_mlp_dim=320)
    folder = save_weights(tmp_path / "deep", random_model(beit3, sam), sizes_of(beit3, sam))
    segmenter = EvfSamSegmenter.from_pretrained(str(folder), device="cpu")
    texts = ["the cat", "the dog", "the cup", "cup", "small dog", "brown cup", "the dog on the left", "left"]

    def together():
        return segmenter.segment(segmenter.encode(photo), texts).probabilities

    def apart():
        return np.concatenate([segmenter.segment(segmenter.encode(photo), [t]).probabilities for t in texts])

    def seconds(call):
        start = time.process_time()  # the processor's: what else runs on the machine does not count
        return call(), time.process_time() - start

    together()
    (one, short), (eight, long) = seconds(together), seconds(apart)
    assert np.abs(one - eight).max() < 1e-4
    assert short < 0.5 * long


# What the two encoders read.


def test_sam_reads_the_longer_side_at_full_size_and_zero_beyond():
    pixels, resized = sam_pixels(Image.new("RGB", (300, 199), (200, 100, 50)), 1024)
    assert resized == (679, 1024)  # 199 × 1024 / 300 = 679.25
    assert pixels.shape == (1, 3, 1024, 1024)
    inside = [
        (value - mean) / std for value, mean, std in zip((200, 100, 50), PIXEL_MEAN, PIXEL_STD, strict=True)
    ]
    assert torch.allclose(pixels[0, :, 678, 1023], torch.tensor(inside))
    assert not pixels[0, :, 679:].any()
    pixels, resized = sam_pixels(Image.new("RGB", (1, 3), (200, 100, 50)), 64)
    assert resized == (64, 21)
    assert not pixels[0, :, :, 21:].any()
    assert pixels[0, :, :, :21].all()


def test_beit3_reads_a_square_about_minus_one_to_one():
    photo = Image.fromarray(data.coffee())
    pixels = beit3_pixels(photo, 224)
    assert pixels.shape == (1, 3, 224, 224)
    assert -1.3 < pixels.min() < -0.8 < 0.8 < pixels.max() < 1.3
    square = photo.crop((0, 0, 224, 224))
    expected = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(beit3_pixels(square, 224)[0], expected, atol=1e-5)
    # No anti-aliasing: single bright columns between the samples are not seen.
    stripes = np.zeros((448, 4 * 224, 3), np.uint8)
    stripes[:, 3::4] = 255
    plain = beit3_pixels(Image.fromarray(stripes), 224)
    averaged = torch.from_numpy(np.array(Image.fromarray(stripes).resize((224, 224), 3))) / 127.5 - 1
    assert (plain.mean() - averaged.mean()).abs() > 0.1


# The tokenizer.


def test_texts_have_a_start_an_end_and_padding_on_the_right(segmenter):
    tokens = segmenter.tokenizer(["the cat", "cup"], padding=True, padding_side="right")
    assert [row[0] for row in tokens.input_ids] == [0, 0]
    assert tokens.input_ids[0][-1] == 2
    assert tokens.input_ids[1][-2:] == [2, 1]
    assert tokens.attention_mask[1] == [1, 1, 1, 0]


def test_a_sentencepiece_vocabulary_gives_the_original_s_ids(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = ["the cat on the left", "a small brown dog", "[semantic] the sky behind the cup", "cats, dogs."]
    (tmp_path / "texts.txt").write_text("\n".join(texts * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts.txt"),
        model_prefix=str(tmp_path / "sentencepiece.bpe"),
        vocab_size=35,
        model_type="unigram",
        minloglevel=2,
    )
    folder = save_weights(tmp_path / "weights", random_model(), sizes_of())
    for file in folder.glob("*token*.json"):
        file.unlink()
    (tmp_path / "sentencepiece.bpe.model").rename(folder / "sentencepiece.bpe.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    segmenter = EvfSamSegmenter.from_pretrained(str(folder), device="cpu")
    for text in (*texts, "  a   cat "):
        # Ids go up by one: the original puts padding at 1.
        assert segmenter.tokenizer(text).input_ids == [0, *(piece + 1 for piece in pieces.encode(text)), 2]


# Bad input.


def one_line(call, match):
    with pytest.raises(SaliencyError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused_with_the_way_out(weights, tmp_path):
    (tmp_path / "config.json").write_bytes((weights / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    one_line(
        lambda: EvfSamSegmenter.from_pretrained(str(tmp_path), "cpu"), "never read: name a revision.*or con"
    )


def test_a_revision_of_the_hub_is_taken(weights, photo, tmp_path, monkeypatch, capsys):
    """As it lies in the hub's own cache: main has a pickle alone, a pull request has safetensors."""
    repo = tmp_path / "models--someone--evf"
    for revision, commit in (("main", "a" * 40), ("refs/pr/1", "b" * 40)):
        (repo / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (repo / "refs" / revision).write_text(commit)
        shutil.copytree(weights, repo / "snapshots" / commit)
    (repo / "snapshots" / ("a" * 40) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    one_line(lambda: load_segmenter("evf-sam:someone/evf", device="cpu"), "no model.safetensors")
    photo.save(tmp_path / "cup.png")
    options = ["--segmenter", "evf-sam:someone/evf@refs/pr/1", "--device", "cpu", "--json"]
    assert main(["predict", str(tmp_path / "cup.png"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "nano + someone/evf@refs/pr/1"


# Pickled weights, converted at the user's word.


def pickled(weights, folder, parts=1):
    folder.mkdir()
    state = load_file(weights / "model.safetensors")
    names = sorted(state)
    for part in range(parts):
        name = "pytorch_model.bin" if parts == 1 else f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        torch.save({name: state[name] for name in names[part::parts]}, folder / name)
    for file in weights.glob("*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("parts", [1, 2])
def test_converted_weights_are_those_that_were_pickled(weights, segmenter, photo, parts, tmp_path, capsys):
    folder = pickled(weights, tmp_path / "pickled", parts)
    source = folder if parts > 1 else folder / "pytorch_model.bin"
    assert main(["models", "convert", str(source), str(tmp_path / "safe")]) == 0
    count = len(load_file(weights / "model.safetensors"))
    assert f"{count} tensors are in {tmp_path / 'safe'}" in capsys.readouterr().out
    safe = EvfSamSegmenter.from_pretrained(str(tmp_path / "safe"), device="cpu")
    one, other = (s.segment(s.encode(photo), TEXTS).probabilities for s in (segmenter, safe))
    assert np.array_equal(one, other)
    assert main(["models", "convert", str(source), str(tmp_path / "safe")]) == 2
    assert "holds a model.safetensors already" in capsys.readouterr().err


class Malicious:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_what_a_pickle_would_run_is_not_run(tmp_path, capsys):
    trap = tmp_path / "trap"
    torch.save({"weight": torch.zeros(2), "more": Malicious(trap)}, tmp_path / "bad.bin")
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    (tmp_path / "broken.bin").write_bytes(b"no pickle")
    for name, reason in (
        ("bad.bin", "no weights could be read"),
        ("list.bin", "holds other things than tensors by name"),
        ("broken.bin", "no weights could be read"),
        ("absent.bin", "no such file"),
    ):
        assert main(["models", "convert", str(tmp_path / name), str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip()
        assert reason in error
        assert "\n" not in error
    assert not trap.exists()
    assert not list((tmp_path / "out").iterdir())


def test_split_weights_are_read_through_their_index(weights, segmenter, tmp_path, photo):
    state = load_file(weights / "model.safetensors")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:100], "model-00002-of-00002.safetensors": names[100:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in weights.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    split = EvfSamSegmenter.from_pretrained(str(tmp_path), device="cpu")
    one, other = (s.segment(s.encode(photo), TEXTS).probabilities for s in (segmenter, split))
    assert np.array_equal(one, other)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    one_line(
        lambda: EvfSamSegmenter.from_pretrained(str(tmp_path), "cpu"), "00002-of-00002.safetensors cannot"
    )


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (None, "has no config.json"),
        ("nonsense", "is not JSON"),
        ("[]", "holds no mapping"),
        ('{"auto_map": {"AutoModel": "own.Model"}}', r"asks for code of its own \(own.Model\)"),
        ('{"mm_extractor_scale": "large", "sam_scale": "tiny"}', "sam_scale 'tiny'.*not SAM 2"),
        ('{"sam_scale": "huge"}', "mm_extractor_scale None"),
        ('{"mm_extractor_scale": "large", "sam_scale": "huge"}', "are missing"),
    ],
)
def test_folders_of_other_models_are_refused(weights, tmp_path, config, match):
    (tmp_path / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes())
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    one_line(lambda: EvfSamSegmenter.from_pretrained(str(tmp_path), "cpu"), match)


def test_a_tokenizer_must_be_there_and_fit(weights, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((weights / file).read_bytes())
    one_line(lambda: EvfSamSegmenter.from_pretrained(str(tmp_path), "cpu"), "has no tokenizer")
    tokenizer_of([f"word{index}" for index in range(100)]).save_pretrained(tmp_path)
    one_line(
        lambda: EvfSamSegmenter.from_pretrained(str(tmp_path), "cpu"), "106 entries for an EVF-SAM of 70"
    )


def test_what_is_neither_folder_nor_hub_name_is_refused():
    one_line(lambda: EvfSamSegmenter.from_pretrained("no/such/folder/here", "cpu"), "it is no folder")
    one_line(lambda: EvfSamSegmenter.from_pretrained("anything", "cpu", "int8"), "unknown dtype 'int8'")
