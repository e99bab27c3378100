"""The large segmenters: one contract for all, on the real architectures with tiny random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from transformers import GroundingDinoImageProcessorPil, SamImageProcessorPil, ViTImageProcessorPil

import tiny_segmenters as tiny
from saliency_r1.catalogue import SEGMENTERS
from saliency_r1.errors import SaliencyError
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.segmenters.batched import PHOTOS_AT_ONCE, find_many
from saliency_r1.segmenters.candidates import kept, one_mask
from saliency_r1.segmenters.load_segmenter import load_segmenter
from saliency_r1.segmenters.photo_reading import Reading, read_reading

NAMES = [model.name for model in SEGMENTERS]
LARGE = [name for name in NAMES if name != "nano"]
BY_INSTANCE = ["grounded-sam", "grounded-sam2", "sam3"]
TEXTS = (
    "the cat",
    "the small brown dog on the left of the cup",
    "cup",
    "a ball",
    "two red",
    "it",
    "the dog behind it",
    "left cup.",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny.save_all(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def segmenters(folders: dict[str, Path]) -> dict[str, Segmenter]:
    return {name: tiny.load(name, folders) for name in NAMES}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.coffee()).resize((150, 100))


def one_line(call, match: str) -> None:
    with pytest.raises(SaliencyError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


# The contract.


@pytest.mark.parametrize("name", NAMES)
def test_masks_have_the_photo_s_size_and_lie_between_0_and_1(name, segmenters, photo):
    segmenter = segmenters[name]
    assert isinstance(segmenter, Segmenter)
    encoded = segmenter.encode(photo)
    for instances in (False, True):
        found = segmenter.segment(encoded, TEXTS[:3], instances=instances)
        assert found.probabilities.shape == (3, photo.height, photo.width)
        assert found.probabilities.dtype == found.scores.dtype == np.float32
        assert found.probabilities.min() >= 0
        assert found.probabilities.max() <= 1
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
    none = segmenter.segment(encoded, [])
    assert none.probabilities.shape == (0, photo.height, photo.width)
    assert none.scores.shape == (0,)


@pytest.mark.parametrize("instances", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_eight_expressions_equal_eight_calls(name, instances, segmenters, photo):
    segmenter = segmenters[name]
    together = segmenter.segment(segmenter.encode(photo), TEXTS, instances=instances)
    for index, text in enumerate(TEXTS):
        alone = segmenter.segment(segmenter.encode(photo), [text], instances=instances)
        assert np.abs(together.probabilities[index] - alone.probabilities[0]).max() < 1e-4
        assert abs(together.scores[index] - alone.scores[0]) < 1e-4
    assert np.abs(together.probabilities - together.probabilities[:1]).max() > 0.01


def eight_photos() -> list[Image.Image]:
    """Photos of four sizes, two of each."""
    coffee, cat = Image.fromarray(data.coffee()), Image.fromarray(data.chelsea())
    sizes = [(150, 100), (100, 150), (150, 100), (100, 80), (90, 37), (100, 80), (100, 150), (37, 90)]
    return [(cat if index % 2 else coffee).resize(size) for index, size in enumerate(sizes)]


@pytest.mark.parametrize("name", NAMES)
def test_eight_photos_equal_eight_calls(name, segmenters):
    segmenter = segmenters[name]
    photos = eight_photos()
    texts = [TEXTS[index : index + count] for index, count in enumerate((2, 0, 3, 1, 1, 2, 4, 1))]
    instances = [index % 2 == 0 for index in range(8)]
    together = segmenter.segment_many(segmenter.encode_many(photos), texts, instances)
    for photo, words, each, found in zip(photos, texts, instances, together, strict=True):
        alone = segmenter.segment(segmenter.encode(photo), words, instances=each)
        assert found.probabilities.shape == (len(words), photo.height, photo.width)
        assert np.abs(found.probabilities - alone.probabilities).max(initial=0) < 1e-4
        assert np.abs(found.scores - alone.scores).max(initial=0) < 1e-4
    first, third = together[0].probabilities[0], together[2].probabilities[0]
    assert np.abs(first - third).max() > 0.01, "the photo makes no difference"


@pytest.mark.parametrize("name", NAMES)
def test_masks_at_another_size_are_those_of_the_photo_made_smaller(name, segmenters, photo):
    segmenter = segmenters[name]
    encoded = segmenter.encode(photo)
    full = segmenter.segment(encoded, TEXTS[:3])
    [small] = find_many(segmenter, [encoded], [TEXTS[:3]], [False], [(50, 75)])
    assert small.probabilities.shape == (3, 50, 75)
    halved = full.probabilities.reshape(3, 50, 2, 75, 2).mean((2, 4))
    assert np.abs(small.probabilities.numpy() - halved).mean() < 0.01
    assert small.scores.numpy() == pytest.approx(full.scores, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (333, 7)])
@pytest.mark.parametrize("name", NAMES)
def test_odd_photos(name, size, segmenters):
    segmenter = segmenters[name]
    image = Image.new("RGB", size, (10, 200, 30))
    found = segmenter.segment(segmenter.encode(image), ["the dog", ""])
    assert found.probabilities.shape == (2, size[1], size[0])
    assert np.isfinite(found.probabilities).all()
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("name", LARGE)
def test_texts_beyond_the_longest_are_cut(name, segmenters, photo):
    segmenter = segmenters[name]
    found = segmenter.segment(segmenter.encode(photo), ["small brown dog " * 200, "cup"])
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize("name", LARGE)
def test_half_precision_stays_near(name, folders, segmenters, photo):
    half = tiny.load(name, folders, "bfloat16")
    model = half.detector.model if name.startswith("grounded") else half.model
    assert next(model.parameters()).dtype == torch.bfloat16
    found = half.segment(half.encode(photo), TEXTS[:2])
    exact = segmenters[name].segment(segmenters[name].encode(photo), TEXTS[:2])
    assert found.probabilities.dtype == np.float32
    assert np.abs(found.probabilities - exact.probabilities).mean() < 0.15


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("clipseg", ["model.clip.vision_model"]),
        ("grounded-sam", ["detector.model.model.backbone", "sam.model.vision_encoder"]),
        ("grounded-sam2", ["detector.model.model.backbone", "sam.model.vision_encoder"]),
        ("sam3", ["model.vision_encoder"]),
        ("evf-sam", ["model.sam.vision_encoder"]),
    ],
)
def test_the_photo_is_encoded_once_and_several_in_one_pass(name, parts, segmenters, photo):
    ran: list[str] = []
    hooks = []
    for part in parts:
        module = segmenters[name]
        for attribute in part.split("."):
            module = getattr(module, attribute)
        hooks.append(module.register_forward_hook(lambda *_, part=part: ran.append(part)))
    encoded = segmenters[name].encode(photo)
    assert sorted(ran) == sorted(parts)
    segmenters[name].segment(encoded, TEXTS)
    assert sorted(ran) == sorted(parts)
    ran.clear()
    segmenters[name].encode_many([photo] * (2 * PHOTOS_AT_ONCE))
    assert sorted(ran) == sorted(2 * parts)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["clipseg", "evf-sam"])
def test_a_compiled_image_encoder_gives_the_same(name, folders, segmenters, photo):
    segmenter = tiny.load(name, folders)
    compiled: list[int] = []

    def counted(graph, inputs):
        compiled.append(len(inputs))
        return graph.forward

    segmenter.compile(backend=counted)
    found = segmenter.segment(segmenter.encode(photo), TEXTS[:2])
    assert compiled, "nothing was compiled"
    expected = segmenters[name].segment(segmenters[name].encode(photo), TEXTS[:2])
    assert np.abs(found.probabilities - expected.probabilities).max() < 1e-4


def test_the_nano_segmenter_is_not_compiled(segmenters):
    one_line(segmenters["nano"].compile, "nano has no image encoder of one size")


# Regions and instances.


@pytest.mark.parametrize("name", BY_INSTANCE)
def test_a_region_is_a_union_and_an_instance_one_of_it(name, segmenters, photo):
    segmenter = segmenters[name]
    encoded = segmenter.encode(photo)
    regions = segmenter.segment(encoded, TEXTS)
    single = segmenter.segment(encoded, TEXTS, instances=True)
    assert (single.probabilities <= regions.probabilities + 1e-5).all()
    assert (single.probabilities < regions.probabilities - 0.1).any()
    assert single.probabilities.max() > 0.5


@pytest.mark.parametrize("name", BY_INSTANCE)
def test_what_is_not_found_has_an_empty_mask(name, folders, photo):
    segmenter = tiny.load(name, folders)
    (segmenter if name == "sam3" else segmenter.detector).threshold = 1.1
    for instances in (False, True):
        found = segmenter.segment(segmenter.encode(photo), TEXTS[:2], instances=instances)
        assert not found.probabilities.any()
        assert ((found.scores > 0) & (found.scores < 1)).all()  # how sure it is that nothing is there


def test_some_found_and_some_not(segmenters, folders, photo):
    segmenter = tiny.load("grounded-sam", folders)
    encoded = [segmenter.encode(photo).detector]
    found = segmenter.detector.detect(encoded, [0] * len(TEXTS), TEXTS, [1] * len(TEXTS))
    best = [boxes.best for boxes in found]
    segmenter.detector.threshold = float(np.median(best))
    found = segmenter.segment(segmenter.encode(photo), TEXTS)
    there = np.array(best) >= np.median(best)
    assert 0 < there.sum() < len(TEXTS)
    assert (found.probabilities.any((1, 2)) == there).all()
    assert found.scores[~there] == pytest.approx(1 - np.array(best)[~there], abs=1e-5)


def test_one_mask_is_the_largest_logit_and_the_score_by_area():
    logits = torch.full((2, 2, 4), -3.0)
    logits[0, :, 0] = 2.0  # two pixels
    logits[1, :, 1:] = 1.0  # six
    mask, score = one_mask(logits, torch.tensor([0.8, 0.4]))
    assert torch.equal(mask, torch.tensor([[2.0, 1.0, 1.0, 1.0]] * 2))
    assert score == pytest.approx((2 * 0.8 + 6 * 0.4) / 8)
    mask, score = one_mask(logits[:0], torch.zeros(0))
    assert not mask.sigmoid().any()
    assert score == 0


def test_kept_takes_the_surest_first():
    scores = torch.tensor([0.2, 0.9, 0.5, 0.7])
    assert kept(scores, 0.5, 4).tolist() == [1, 3, 2]
    assert kept(scores, 0.5, 2).tolist() == [1, 3]
    assert kept(scores, 0.95, 4).tolist() == []


def test_the_pipeline_asks_for_instances_where_the_task_names_them(photo):
    class Says:
        name = "says"

        def respond(self, questions, task, *, reasoning=True):
            tag = task.spec.tag
            text = f"<think>.</think><answer><{tag}>the cup</{tag}></answer>"
            return [PolicyOutput(text, [], None, 0.5) for _ in questions]

    asked = []
    nano = load_segmenter("nano", "cpu")

    class Records:
        name = "records"
        encode = staticmethod(nano.encode)

        def segment(self, encoded, expressions, *, instances=False):
            asked.append(instances)
            return nano.segment(encoded, expressions)

    pipe = SaliencyPipeline(Says(), Records())
    for task, images in (("sod", photo), ("sis", photo), ("cosod", [photo, photo])):
        asked.clear()
        pipe(images, task)
        # Of SIS the first call alone: what is salient and nobody's is a region.
        assert asked[0] == (task == "sis")
        assert not any(asked[1:])


# Against transformers' own path.


def test_clipseg_is_the_stock_model(segmenters, photo):
    segmenter = segmenters["clipseg"]
    tokens = segmenter.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    pixels = segmenter.reading(photo).expand(len(TEXTS), -1, -1, -1)
    with torch.inference_mode():
        logits = segmenter.model(pixel_values=pixels, **tokens).logits[:, None]
    expected = torch.nn.functional.interpolate(logits, photo.size[::-1], mode="bilinear").sigmoid()[:, 0]
    found = segmenter.segment(segmenter.encode(photo), TEXTS).probabilities
    assert np.abs(found - expected.numpy()).max() < 1e-4


def test_the_detector_is_the_stock_model(segmenters, photo):
    detector = segmenters["grounded-sam"].detector
    tokens = detector.tokenizer("the brown dog.", return_tensors="pt")
    with torch.inference_mode():
        output = detector.model(pixel_values=detector.reading(photo), **tokens)
        (found,) = detector.detect(detector.encode_many([photo]), [0], ["The brown  dog"], [100])
    sure = output.logits[0].sigmoid().amax(-1)
    keep = sure >= detector.threshold
    assert keep.any()
    assert found.scores.sort().values.tolist() == pytest.approx(sure[keep].sort().values.tolist(), abs=1e-4)
    centre, size = output.pred_boxes[0, sure.argmax()].split(2)
    best = torch.cat([centre - size / 2, centre + size / 2]).clamp(0, 1)
    assert torch.allclose(found.boxes[0], best, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("grounded-sam", (90, 150)), ("grounded-sam2", (150, 90))])
def test_boxes_give_what_the_stock_sam_draws(name, size, segmenters):
    sam = segmenters[name].sam
    photo = Image.fromarray(data.coffee()).resize(size)
    box = torch.tensor([[0.1, 0.2, 0.7, 0.9]])
    pixels = sam.reading(photo)
    height, width = pixels.shape[-2:]
    frame = torch.tensor([width, height, width, height])
    square = torch.nn.functional.pad(pixels, (0, sam.side - width, 0, sam.side - height))
    with torch.inference_mode():
        stock = sam.model(pixel_values=square, input_boxes=(box * frame)[None], multimask_output=False)
        [encoded] = sam.encode_many([photo])
        logits, ious = sam.masks([encoded], [0], box)
        found = sam.upscale(logits, encoded, encoded.original)
    assert torch.allclose(logits, stock.pred_masks[0, :, 0], atol=1e-4)
    assert torch.allclose(ious, stock.iou_scores[0, :, 0].clamp(0, 1), atol=1e-5)
    assert found.shape == (1, *size[::-1])
    if name == "grounded-sam":
        processor = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
        (expected,) = processor.post_process_masks(
            stock.pred_masks, [size[::-1]], [(height, width)], binarize=False
        )
        assert torch.allclose(found[0], expected[0, 0], atol=1e-4)


def test_sam3_is_the_stock_model(segmenters, photo):
    segmenter = segmenters["sam3"]
    tokens = segmenter.tokenizer("a ball", padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        output = segmenter.model(pixel_values=segmenter.reading(photo), **tokens)
    sure = (output.pred_logits.sigmoid() * output.presence_logits.sigmoid())[0]
    logits = output.pred_masks[:, sure.argmax()][None]
    expected = torch.nn.functional.interpolate(logits, photo.size[::-1], mode="bilinear").sigmoid()
    found = segmenter.segment(segmenter.encode(photo), ["a ball"], instances=True)
    assert np.abs(found.probabilities[0] - expected[0, 0].numpy()).max() < 1e-4
    assert found.scores[0] == pytest.approx(sure.max().item(), abs=1e-5)


def test_sam3_is_read_out_of_the_video_model_s_weights(folders, segmenters, tmp_path, photo):
    for file in folders["sam3"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(folders["sam3"] / "model.safetensors")
    video = {f"detector_model.{name}": tensor for name, tensor in state.items()}
    save_file(
        video | {"tracker_model.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((folders["sam3"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": config}))
    other = load_segmenter(f"sam3:{tmp_path}", "cpu")
    other.threshold = 0.1
    found, expected = (s.segment(s.encode(photo), TEXTS[:2]) for s in (other, segmenters["sam3"]))
    assert np.array_equal(found.probabilities, expected.probabilities)


# What a model reads of a photo.


@pytest.mark.parametrize("size", [(150, 100), (99, 150), (100, 80), (700, 31)])
def test_photos_are_read_as_the_stock_processors_read_them(size, folders):
    photo = Image.fromarray(data.coffee()).resize(size)
    stock = (
        ("clipseg", ViTImageProcessorPil(size={"height": 64, "width": 64}, **tiny.IMAGENET)),
        ("dino", GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 107})),
        ("sam", SamImageProcessorPil(size={"longest_edge": 64}, do_pad=False)),
    )
    for name, processor in stock:
        expected = processor(photo, return_tensors="pt").pixel_values
        found = read_reading(folders[name], Reading({"height": 64, "width": 64}))(photo)
        assert found.shape == expected.shape, name
        assert torch.allclose(found, expected, atol=1e-5), name


def test_an_impossible_size_is_one_clear_line(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 3}}')
    one_line(lambda: read_reading(tmp_path, Reading({"longest_edge": 9})), "has size {'shortest_edge': 3}")
