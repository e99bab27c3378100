"""The pipeline's own logic, with a rule-based policy and a colour segmenter, then the embedded model."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.images import LoadedImage, load_layers
from saliency_r1.nano import words
from saliency_r1.pictures.finding import FoundImage
from saliency_r1.pipeline import SaliencyPipeline, expected_quality
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.response import Response
from saliency_r1.tasks import Task
from stubs import PolicyStub, SegmenterStub

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (30, 40, 220)}


def colour_mask(image: Image.Image, colour: str) -> np.ndarray:
    if colour == "object":
        return np.logical_or.reduce([colour_mask(image, each) for each in COLOURS])
    away = np.asarray(image, np.int32) - np.array(COLOURS[colour])
    return np.abs(away).sum(axis=2) < 60


class ColourPolicy(PolicyStub):
    """Names the colours that all images of a question hold, most pixels first."""

    name = "colours"

    def respond(self, *arguments: Any, **options: Any) -> list[PolicyOutput]:
        time.sleep(0.02)  # a batch's, not an image's
        return super().respond(*arguments, **options)

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        areas = {colour: min(int(colour_mask(image, colour).sum()) for image in images) for colour in COLOURS}
        shared = sorted((colour for colour in COLOURS if areas[colour]), key=lambda colour: -areas[colour])
        if task == Task.SIS:
            shared += [f"bright {colour}" for colour in shared]  # another name of the same instance
        else:
            shared = shared[:1]
        text = Response("It is bright." if reasoning else "", tuple(shared), task.spec.tag).text
        return PolicyOutput(text, token_ids=[], confidence=0.8)


class SayingPolicy(PolicyStub):
    """Says one text after the other, sure of each by a half."""

    name = "saying"

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self.texts = list(texts)

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        return PolicyOutput(self.texts.pop(0), token_ids=[], confidence=0.5)


class ColourSegmenter(SegmenterStub):
    """Finds the pixels of the colour that an expression's last word names."""

    name = "threshold"

    def encode(self, image: Image.Image) -> Image.Image:
        self.encoded += 1
        return image

    def find(self, photo: Image.Image, expression: str) -> np.ndarray:
        return colour_mask(photo, expression.split()[-1].lower().strip("."))

    def score(self, expression: str) -> float:
        return 0.5 if " " in expression else 0.9


@pytest.fixture
def pipe() -> SaliencyPipeline:
    return SaliencyPipeline(ColourPolicy(), ColourSegmenter())


def drawn(*colours: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A white image with a disc of each colour, each smaller than the one before."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(colours):
        radius = 5 - index
        draw.circle((6 + 12 * index, 10), radius, fill=COLOURS[colour])
    return image


def test_an_image_gives_a_result_and_a_list_gives_a_list(pipe: SaliencyPipeline) -> None:
    result = pipe(drawn("red"))
    assert result.expressions == ("red",)
    assert result.reasoning == "It is bright."
    assert result.mask.shape == (30, 40)
    assert np.array_equal(result.binary, colour_mask(drawn("red"), "red"))
    assert [each.expressions for each in pipe([drawn("red"), drawn("blue")])] == [("red",), ("blue",)]
    assert pipe([]) == []


def test_a_phrase_is_found_without_asking_the_policy() -> None:
    policy, segmenter = ColourPolicy(), ColourSegmenter()
    picture = drawn("red", "blue")
    result = SaliencyPipeline(policy, segmenter).finding("the small blue")(picture)
    assert np.array_equal(result.binary, colour_mask(picture, "blue"))
    assert (result.reasoning, result.expressions) == ("", ("the small blue",))
    assert (result.confidence, result.policy_confidence) == (0.5, None)
    assert (policy.batches, segmenter.asked) == ([], ["the small blue"])


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "array", "image"])
def test_the_kinds_of_source(pipe: SaliencyPipeline, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ball.png"
    drawn("green").save(path)
    source = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "array": np.asarray(drawn("green")),
        "image": drawn("green"),
    }[kind]
    result = pipe(source)
    assert result.expressions == ("green",)
    assert (result.name, result.source) == (
        ("ball", str(path)) if kind in ("path", "text") else ("image", None)
    )


def test_nothing_salient_is_an_empty_mask(pipe: SaliencyPipeline) -> None:
    result = pipe(drawn())
    assert result.expressions == ()
    assert result.instances == ()
    assert result.mask.shape == (30, 40)
    assert not result.mask.any()
    assert result.confidence == 0.8


def test_without_reasoning(pipe: SaliencyPipeline) -> None:
    result = pipe(drawn("red"), reasoning=False)
    assert result.reasoning == ""
    assert result.expressions == ("red",)


def test_two_names_of_one_instance_are_one(pipe: SaliencyPipeline) -> None:
    result = pipe(drawn("red", "blue"), "sis")
    assert result.expressions == ("red", "blue", "bright red", "bright blue")
    assert [instance.expression for instance in result.instances] == ["red", "blue"]
    assert pipe.segmenter.encoded == 1


def test_a_second_name_takes_what_no_name_found(pipe: SaliencyPipeline) -> None:
    pipe.policy = SayingPolicy(["<think></think><answer><ins>red</ins><ins>the other red</ins></answer>"])
    result = pipe(drawn("red", "blue"), "sis")
    assert [instance.expression for instance in result.instances] == ["red", "the other red"]
    for instance, colour in zip(result.instances, ("red", "blue"), strict=True):
        assert np.array_equal(instance.binary, colour_mask(result.image, colour))
    assert result.confidence == pytest.approx((0.9 + 0.5) / 2)
    assert pipe.segmenter.encoded == 1


def test_a_cosod_group_is_one_question_and_has_one_answer(pipe: SaliencyPipeline) -> None:
    results = pipe([drawn("red", "blue"), drawn("green", "blue"), drawn("blue")], "cosod")
    assert pipe.policy.batches == [[3]]
    assert [result.expressions for result in results] == [("blue",)] * 3
    assert all(result.binary.any() for result in results)


def test_cosod_of_one_image_outside_a_list_is_refused(pipe: SaliencyPipeline) -> None:
    with pytest.raises(SaliencyError, match="group of images"):
        pipe(drawn("red"), "cosod")


def test_a_large_group_is_asked_in_chunks_and_votes(pipe: SaliencyPipeline) -> None:
    group = [drawn("green", "blue") for _ in range(8)] + [drawn("red", "blue") for _ in range(3)]
    results = list(pipe.stream(group, "cosod", group_images=4))
    assert pipe.policy.batches == [[4, 4, 3]]  # as one batch
    assert [result.expressions for result in results] == [("green",)] * 11
    assert [bool(result.instances) for result in results] == [True] * 8 + [False] * 3
    # Eight images of eleven stand behind it, at 0.8 each.
    assert results[0].policy_confidence == pytest.approx(0.8 * 8 / 11)


def test_an_image_without_the_object_gets_an_empty_mask(pipe: SaliencyPipeline) -> None:
    pipe.policy = SayingPolicy(["<think></think><answer><rg>red</rg></answer>"])
    with_it, without = pipe([drawn("red"), drawn("blue")], "cosod")
    assert with_it.binary.any()
    assert without.instances == ()
    assert not without.mask.any()
    assert without.expressions == ("red",)
    assert without.confidence == pytest.approx(0.9)  # of the segmenter, which found it right to find nothing


def test_where_what_is_shared_stands_out_the_mask_is_of_what_stands_out(pipe: SaliencyPipeline) -> None:
    pipe.policy = SayingPolicy(["<think></think><answer><rg>blue</rg></answer>"] * 2)
    alone, both, without = drawn("blue"), drawn("blue", "red"), drawn("red")
    results = pipe([alone, alone, alone, both, without], "cosod")
    assert {result.expressions for result in results} == {("blue",)}
    assert np.array_equal(results[0].binary, colour_mask(alone, "blue"))
    assert np.array_equal(results[3].binary, colour_mask(both, "object"))
    assert not results[4].binary.any()  # the segmenter is sure that it is not there

    outdone = pipe([alone, both, both, without], "cosod")
    assert np.array_equal(outdone[1].binary, colour_mask(both, "blue"))


def test_what_is_hardly_found_in_a_group_is_not_believed(pipe: SaliencyPipeline) -> None:
    pipe.policy = SayingPolicy(["<think></think><answer><rg>red</rg></answer>"])
    group = [drawn("red", "blue"), drawn("blue"), drawn("green", "blue")]
    for result, image in zip(pipe(group, "cosod"), group, strict=True):
        assert result.expressions == ("the object",)
        assert "<rg>red</rg>" in result.text
        assert np.array_equal(result.binary, colour_mask(image, "object"))


def test_a_chunk_whose_expression_is_found_wins_over_a_surer_one(pipe: SaliencyPipeline) -> None:
    group = [drawn("blue", "red"), *(drawn("blue") for _ in range(5))]
    pipe.policy = SayingPolicy(
        [f"<think></think><answer><rg>{name}</rg></answer>" for name in ("red", "blue")]
    )
    results = list(pipe.stream(group, "cosod", group_images=3))
    assert {result.expressions for result in results} == {("blue",)}
    assert all(result.binary.any() for result in results)


def test_a_group_that_shares_nothing_has_empty_masks(pipe: SaliencyPipeline) -> None:
    pipe.policy = SayingPolicy(["<think>No.</think><answer></answer>"])
    for result in pipe([drawn("red"), drawn("blue")], "cosod"):
        assert (result.expressions, result.instances) == ((), ())
        assert result.confidence == pytest.approx(0.5)


def test_chunks_that_find_nothing_do_not_silence_the_others(pipe: SaliencyPipeline) -> None:
    nothing, red = "<think></think><answer></answer>", "<think></think><answer><rg>red</rg></answer>"
    pipe.policy = SayingPolicy([nothing, red, red.replace("red", "The RED.")])
    assert [one.expressions for one in pipe([drawn("red")] * 6, "cosod", group_images=2)] == [("red",)] * 6


@pytest.mark.parametrize("images", [2, 5, 6, 11, 200])
def test_the_policy_never_sees_more_than_it_may(pipe: SaliencyPipeline, images: int) -> None:
    results = pipe.stream((drawn("red") for _ in range(images)), "cosod", group_images=5)
    assert sum(1 for _ in results) == images
    sizes = [size for batch in pipe.policy.batches for size in batch]
    assert sum(sizes) == images
    assert max(sizes) <= 5
    assert min(sizes) >= 2
    # A few are looked at before, as witnesses.
    assert pipe.segmenter.encoded == images + min(images, 5)


def test_a_group_is_never_held_as_a_whole(
    pipe: SaliencyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn("red").save(tmp_path / "ball.png")
    read: list[weakref.ref[Image.Image]] = []
    most = 0

    def counted(source: Path, **options: bool) -> LoadedImage:
        nonlocal most
        picture = load_layers(source, **options)
        read.append(weakref.ref(picture.image))
        gc.collect()
        most = max(most, sum(reference() is not None for reference in read))
        return picture

    monkeypatch.setattr("saliency_r1.pictures.image_sources.load_layers", counted)
    monkeypatch.setattr("saliency_r1.policy.answering.BATCH_PIXELS", 3 * 40 * 30)
    done = sum(1 for _ in pipe.stream([tmp_path / "ball.png"] * 40, "cosod", group_images=3))
    assert done == 40
    assert len(read) == 80
    assert most <= 3 + 3 + 2  # a batch of one chunk, the witnesses, and the one that is about to go


def test_what_the_policy_sees_of_a_group_is_bounded_too(
    pipe: SaliencyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_r1.cosod_path.BATCH_PIXELS", 1200)
    seen: list[tuple[int, int]] = []
    respond = pipe.policy.respond
    monkeypatch.setattr(
        pipe.policy,
        "respond",
        lambda batch, *rest, **named: (
            seen.extend(image.size for images in batch for image in images) or respond(batch, *rest, **named)
        ),
    )
    results = pipe([drawn("red")] * 4, "cosod", group_images=2)
    assert seen == [(20, 15)] * 4
    assert all(result.mask.shape == (30, 40) for result in results)


def test_unreadable_images_of_a_group_are_told_once_and_left_out(
    pipe: SaliencyPipeline, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.jpg"
    group = [drawn("red"), missing, drawn("red"), drawn("blue", "red")]
    failures: list[object] = []
    results = list(pipe.stream(group, "cosod", on_error=lambda source, _: failures.append(source)))
    assert [result.expressions for result in results] == [("red",)] * 3
    assert failures == [missing]
    assert pipe.policy.batches == [[3]]
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        pipe(group, "cosod")
    assert list(pipe.stream([missing], "cosod", on_error=lambda *_: None)) == []


def test_a_chunk_of_one_image_is_refused(pipe: SaliencyPipeline) -> None:
    with pytest.raises(SaliencyError, match="group_images is 1: give at least 2"):
        pipe.stream([drawn("red")], "cosod", group_images=1)


def test_an_unknown_task_is_refused_before_any_image_is_read(pipe: SaliencyPipeline) -> None:
    with pytest.raises(SaliencyError, match="unknown task 'depth'"):
        pipe.stream(["no such file"], "depth")


def test_images_are_read_in_batches(pipe: SaliencyPipeline) -> None:
    read = 0

    def images() -> object:
        nonlocal read
        for _ in range(5):
            read += 1
            yield drawn("red")

    results = pipe.stream(images(), batch_images=2)
    next(results)
    assert read == 2
    assert len(list(results)) == 4
    assert pipe.policy.batches == [[1, 1], [1, 1], [1]]


class ManySegmenter(ColourSegmenter):
    """Takes several photos at once, and says how many."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[int] = []

    def encode_many(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        self.together.append(len(images))
        return [self.encode(image) for image in images]


@pytest.mark.parametrize("task", ["sod", "sis", "cosod"])
def test_masks_of_a_batch_are_made_together_and_are_those_of_each_alone(
    pipe: SaliencyPipeline, task: str
) -> None:
    images = [drawn("red", "blue"), drawn("red"), drawn("red"), drawn("blue", "red"), drawn("green", "red")]
    images += [] if task == "cosod" else [drawn(), drawn("blue")]
    expected = list(pipe.stream(images, task, batch_images=1))
    pipe.segmenter = ManySegmenter()
    found = list(pipe.stream(images, task, batch_images=3))
    for one, other in zip(found, expected, strict=True):
        assert one.expressions == other.expressions
        assert [each.expression for each in one.instances] == [each.expression for each in other.instances]
        assert np.array_equal(one.mask, other.mask)
        assert one.confidence == other.confidence
    assert 2 <= max(pipe.segmenter.together) <= 5


class OnDevice(ColourPolicy):
    """Takes a tenth of a second for a batch, on a device of its own."""

    device = "somewhere"

    def respond(self, batch: Any, task: Any, **options: Any) -> list[PolicyOutput]:
        began = time.perf_counter()
        time.sleep(0.1)
        outputs = super().respond(batch, task, **options)
        self.spans.append((began, time.perf_counter()))
        return outputs

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[float, float]] = []


class SlowSegmenter(ColourSegmenter):
    device = "elsewhere"

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[float, float]] = []

    def encode(self, image: Image.Image) -> Image.Image:
        began = time.perf_counter()
        time.sleep(0.05)
        self.spans.append((began, time.perf_counter()))
        return super().encode(image)


def test_policy_and_segmenter_on_two_devices_work_at_the_same_time() -> None:
    images = [drawn("red"), drawn("blue"), drawn("green", "red"), drawn("blue", "red"), drawn(), drawn("red")]
    expected = SaliencyPipeline(ColourPolicy(), ColourSegmenter())(images)
    policy, segmenter = OnDevice(), SlowSegmenter()
    found = list(SaliencyPipeline(policy, segmenter).stream(images, batch_images=2))
    for one, other in zip(found, expected, strict=True):
        assert one.expressions == other.expressions
        assert np.array_equal(one.mask, other.mask)
    assert policy.batches == [[1, 1]] * 3

    def overlapping() -> bool:
        return any(
            start < end and began < ended for start, ended in policy.spans for began, end in segmenter.spans
        )

    assert overlapping()
    policy.spans.clear()
    segmenter.spans.clear()
    segmenter.device = policy.device
    list(SaliencyPipeline(policy, segmenter).stream(images, batch_images=2))
    assert not overlapping()


def test_a_policy_that_fails_ahead_is_an_error_and_leaves_no_thread() -> None:
    policy = OnDevice()
    policy.respond = lambda batch, task, **options: 1 / 0
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(SaliencyPipeline(policy, SlowSegmenter()).stream([drawn("red")] * 5, batch_images=2))
    assert threading.active_count() == before


def test_large_images_close_a_batch(pipe: SaliencyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_r1.policy.answering.BATCH_PIXELS", 2000)
    pipe([drawn("red")] * 5)  # 1200 pixels each
    assert pipe.policy.batches == [[1, 1], [1, 1], [1]]


def test_an_unreadable_image_is_raised_or_reported(pipe: SaliencyPipeline, tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        pipe([drawn("red"), missing])
    failures: list[object] = []
    results = pipe.stream(
        [drawn("red"), missing, drawn("blue")], on_error=lambda source, _: failures.append(source)
    )
    assert [result.expressions for result in results] == [("red",), ("blue",)]
    assert failures == [missing]


def test_a_found_image_brings_its_name(pipe: SaliencyPipeline, tmp_path: Path) -> None:
    drawn("red").save(tmp_path / "ball.png")
    (result,) = pipe([FoundImage(tmp_path / "ball.png", "games/ball-2")])
    assert (result.name, result.source) == ("games/ball-2", str(tmp_path / "ball.png"))


def test_the_seconds_of_a_batch_are_shared(pipe: SaliencyPipeline) -> None:
    results = pipe([drawn("red")] * 4)
    for result in results:
        assert set(result.seconds) == {"policy", "segmenter", "total"}
        assert 0.005 <= result.seconds["policy"] < 0.02
        assert result.seconds["total"] >= result.seconds["policy"] + result.seconds["segmenter"]


def test_the_model_is_both_names_or_the_one_they_share(pipe: SaliencyPipeline) -> None:
    assert pipe(drawn("red")).model == "colours + threshold"
    pipe.segmenter.name = "colours"
    assert pipe(drawn("red")).model == "colours"


def test_confidence_is_the_masks_and_the_policys_only_without_a_mask(pipe: SaliencyPipeline) -> None:
    result = pipe(drawn("red"))
    assert (result.confidence, result.policy_confidence) == pytest.approx((0.9, 0.8))
    assert expected_quality(0.5, [0.2, 0.6]) == pytest.approx(0.4)
    assert expected_quality(None, [0.9]) == 0.9
    assert expected_quality(0.5, []) == 0.5
    assert expected_quality(None, []) is None


def test_a_name_without_a_mask_is_no_confidence(pipe: SaliencyPipeline) -> None:
    named = "<think>So.</think><answer><rg>blue</rg></answer>"
    pipe.policy = SayingPolicy([named])
    result = pipe(drawn("red"))
    assert not result.binary.any()
    assert result.confidence == 0
    two = "<think>So.</think><answer><ins>red</ins><ins>blue</ins></answer>"
    twice = "<think>So.</think><answer><ins>red</ins><ins>red</ins></answer>"
    pipe.policy = SayingPolicy([two, twice])
    assert pipe(drawn("red"), "sis").confidence == pytest.approx(0.45)
    result = pipe(drawn("red"), "sis")
    assert (len(result.instances), result.confidence) == (1, pytest.approx(0.9))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SaliencyError, match="unknown device 'abacus'"):
        SaliencyPipeline.from_pretrained(device="abacus")


@pytest.fixture(scope="module")
def nano() -> SaliencyPipeline:
    return SaliencyPipeline.from_pretrained(device="cpu")


def test_the_embedded_model_finds_the_cup(nano: SaliencyPipeline) -> None:
    from skimage import data

    result = nano(data.coffee())
    height, width = data.coffee().shape[:2]
    assert result.mask.shape == (height, width)
    assert result.reasoning
    assert len(result.expressions) == 1
    assert result.model == "nano"
    assert 0 < result.confidence <= 1
    # The cup stands in the middle; the table is around it.
    assert result.binary[80:240, 220:380].mean() > 0.9
    assert result.binary[:, 560:].mean() < 0.1


def test_the_embedded_model_answers_a_batch_as_it_answers_one(nano: SaliencyPipeline) -> None:
    from skimage import data

    photos = [data.coffee(), data.chelsea(), data.astronaut()]
    alone = [nano(photo, reasoning=False) for photo in photos]
    together = nano(photos, reasoning=False)
    assert [result.expressions for result in together] == [result.expressions for result in alone]
    for first, second in zip(alone, together, strict=True):
        assert np.abs(first.mask - second.mask).max() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3)])
def test_the_embedded_model_takes_any_size(nano: SaliencyPipeline, size: tuple[int, int]) -> None:
    result = nano(Image.new("RGB", size, "orange"), reasoning=False)
    assert result.mask.shape == (size[1], size[0])
    assert np.isfinite(result.mask).all()


def test_names_are_unique_in_a_call_and_in_a_stream(pipe: SaliencyPipeline, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/1.png", "b/1.png", "c/1-2.png", "d/1.PNG")]
    for path in paths:
        path.parent.mkdir()
        drawn("red").save(path)
    assert [result.name for result in pipe(paths)] == ["1", "1-2", "1-2-2", "1-3"]
    assert [result.name for result in pipe.stream(iter(paths[:2]))] == ["1", "1-2"]
    images = [drawn("red"), np.asarray(drawn("red")), paths[0].read_bytes()]
    assert [result.name for result in pipe(images)] == ["image", "image-2", "image-3"]
    assert [result.name for result in pipe([paths[0], drawn("red")], "cosod")] == ["1", "image"]
    assert [result.name for result in pipe(paths[:2], "cosod")] == ["1", "1-2"]


def test_the_documented_loop_loses_no_photo(pipe: SaliencyPipeline, tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        drawn(colour).save(tmp_path / folder / "1.png")
    paths = [str(tmp_path / folder / "1.png") for folder in ("a", "b")]
    for result in pipe.stream(paths):
        result.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["1-2.json", "1.json"]


def test_what_is_transparent_is_in_no_mask(pipe: SaliencyPipeline) -> None:
    layer = drawn("red", "blue").convert("RGBA")
    layer.paste((*COLOURS["red"], 0), (0, 0, 4, 30))  # red, and not to be seen
    for task in ("sod", "sis"):
        result = pipe(layer, task)
        assert result.expressions[0] == "red"
        assert result.mask[:, :4].max() == 0
        assert result.mask[:, 4:].max() == 1
        cutout = np.asarray(result.cutout())
        assert (cutout[:, :, 3] <= np.asarray(layer)[:, :, 3]).all()
        assert cutout[10, 3].tolist() == [0, 0, 0, 0]
        assert cutout[10, 8].tolist() == [*COLOURS["red"], 255]


def test_nothing_stands_out_where_nothing_is_to_be_seen(pipe: SaliencyPipeline) -> None:
    clear = drawn("red").convert("RGBA")
    clear.putalpha(0)
    first, second = pipe([clear, drawn("blue")])
    assert (first.expressions, first.confidence, first.mask.max()) == ((), 1.0, 0)
    assert second.expressions == ("blue",)
    assert pipe(clear, "sis").instances == ()
    assert len(pipe([clear, drawn("blue"), drawn("blue")], "cosod")) == 3


def test_a_file_that_is_cut_short_is_read_if_asked(pipe: SaliencyPipeline, tmp_path: Path) -> None:
    path = tmp_path / "cut.bmp"
    drawn("red", size=(200, 100)).save(path)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ImageError, match="cut short"):
        pipe(path)
    with pytest.warns(UserWarning, match="cut short"):
        assert pipe(path, accept_truncated=True).image.size == (200, 100)


def test_the_embedded_segmenter_is_asked_for_what_stands_out_of_a_name() -> None:
    """Several instances, and what a user names, are found by their names."""

    class Worded(ColourSegmenter):
        salient_text = staticmethod(words.salient_text)

    photo = Image.new("RGB", (30, 20))
    segmenter = Worded()
    pipe = SaliencyPipeline(SayingPolicy(["<think></think><answer><rg>the red</rg></answer>"]), segmenter)
    assert pipe(photo, "sod").expressions == ("the red",)
    assert segmenter.asked == ["the most salient red"]
    segmenter.asked.clear()
    pipe.finding("the red")(photo)
    assert segmenter.asked == ["the red"]
    for said, asked in (
        ("<ins>the red</ins>", ["the most salient red"]),
        ("<ins>the red</ins><ins>the blue</ins>", ["the red", "the blue"]),
    ):
        segmenter.asked.clear()
        policy = SayingPolicy([f"<think></think><answer>{said}</answer>"])
        SaliencyPipeline(policy, segmenter)(photo, "sis")
        assert segmenter.asked[: len(asked)] == asked


def test_a_group_that_shares_what_stands_out_is_asked_for_that() -> None:
    class Worded(ColourSegmenter):
        salient_text = staticmethod(words.salient_text)

    segmenter = Worded()
    policy = SayingPolicy(["<think></think><answer><rg>the red</rg></answer>"])
    photos = [drawn("red", size=(30, 20)), drawn("red", size=(20, 30))]
    for found in SaliencyPipeline(policy, segmenter)(photos, "cosod"):
        assert found.expressions == ("the red",)
    assert "the most salient red" in segmenter.asked
