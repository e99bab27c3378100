"""Policies of the families that people bring: tiny random models in the layout of the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import product
from math import ceil, floor, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

import tiny_policies
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.images import load_image
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy import checkpoint_check
from saliency_r1.policy.asking import Questions, ask
from saliency_r1.policy.base import Policy, PolicyOutput
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.photo_size import MAX_PIXELS, shrink, workable
from saliency_r1.policy.processors import image_only
from saliency_r1.policy.prompts import EXAMPLES, Prompting, mark_fine_tuned, zero_shot_prompt
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import parse_strict
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.sharing.export import Export, export
from saliency_r1.tasks import Task
from stubs import PolicyStub

PIXELS = 20_000


def draw(colour: str, size: tuple[int, int] = (90, 60)) -> Image.Image:
    image = Image.new("RGB", size, "green")
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill=colour)
    return image


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: make(root / name) for name, make in tiny_policies.FAMILIES.items()}


@pytest.fixture(scope="module")
def policies(folders: dict[str, Path]) -> dict[str, TransformersPolicy]:
    return {
        name: TransformersPolicy.from_pretrained(
            folder, device="cpu", max_pixels=PIXELS, prompting=Prompting.PLAIN
        )
        for name, folder in folders.items()
    }


families = pytest.mark.parametrize("family", tiny_policies.FAMILIES)


@families
def test_a_batch_of_groups_answers_as_each_alone(
    policies: dict[str, TransformersPolicy], family: str
) -> None:
    policy = policies[family]
    assert isinstance(policy, Policy)
    red, blue = draw("red"), draw("blue", (50, 120))
    questions = [[red], [blue, draw("red", (200, 100))], [blue]]
    together = policy.respond(questions, Task.COSOD, max_new_tokens=8)
    for question, one in zip(questions, together, strict=True):
        [alone] = policy.respond([question], Task.COSOD, max_new_tokens=8)
        assert one.token_ids == alone.token_ids
        assert one.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-3)
        assert one.confidence is not None
        assert one.retries == 0
    first, third = together[0].token_logprobs, together[2].token_logprobs
    assert first != pytest.approx(third, abs=1e-2), "the photo makes no difference"


@families
@pytest.mark.parametrize("size", [(1, 1), (3, 400), (4000, 2), (1200, 900)])
def test_photos_of_any_size_are_taken_within_the_bound(
    policies: dict[str, TransformersPolicy], family: str, size: tuple[int, int]
) -> None:
    policy = policies[family]
    inputs = policy._inputs([[Image.new("RGB", size, "red")]], "What?")
    if family.startswith("qwen"):
        side = policy.processor.image_processor.patch_size
        assert inputs["image_grid_thw"].prod() * side**2 <= PIXELS
    elif family == "internvl":
        assert len(inputs["pixel_values"]) <= PIXELS // 28**2 + 1
    elif family not in ("llava", "gemma3"):
        assert inputs["pixel_values"].shape[1] <= (128 // 32) ** 2 + 1
    [output] = policy.respond([[Image.new("RGB", size, "red")]], Task.SOD, max_new_tokens=2)
    assert len(output.token_ids) >= 1


@families
def test_weights_load_as_bfloat16(folders: dict[str, Path], family: str) -> None:
    policy = TransformersPolicy.from_pretrained(folders[family], device="cpu", dtype="bfloat16")
    assert policy.model.dtype == torch.bfloat16
    assert policy.max_pixels == MAX_PIXELS
    write = policy._write([[draw("red")]], "What?", 2, do_sample=False, temperature=1.0, distinct=False)
    assert write[0].confidence is not None


def test_greedy_is_of_the_plain_distribution(policies: dict[str, TransformersPolicy]) -> None:
    """The checkpoint's own settings for generation penalise repetition, which must not shift it."""
    policy = policies["llava"]
    [output] = policy.respond([[draw("red")]], Task.SOD, max_new_tokens=12)
    inputs = policy._inputs([[draw("red")]], Task.SOD.spec.prompt())
    ids = torch.cat([inputs["input_ids"], torch.tensor([output.token_ids])], dim=1)
    with torch.no_grad():
        logits = policy.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0]
    expected = logits[-len(output.token_ids) - 1 : -1].log_softmax(-1).max(-1)
    assert output.token_ids == expected.indices.tolist()
    assert output.token_logprobs == pytest.approx(expected.values.tolist(), abs=1e-4)


# The processor


def resized(height: int, width: int, cell: int, least: int, most: int) -> tuple[int, int]:
    """Qwen2-VL's rule: sides that are whole cells, and between `least` and `most` pixels."""
    rows, columns = round(height / cell), round(width / cell)
    if rows * columns * cell**2 > most:
        shrunk = sqrt(height * width / most)
        rows, columns = floor(height / shrunk / cell), floor(width / shrunk / cell)
    elif rows * columns * cell**2 < least:
        grown = sqrt(least / (height * width))
        rows, columns = ceil(height * grown / cell), ceil(width * grown / cell)
    return rows * cell, columns * cell


def patches(image: Image.Image, side: int, mean: list[float], std: list[float]) -> np.ndarray:
    """Patches in blocks of 2x2, each block and its patches row by row.

    A patch holds channel, frame, row and column, and its two frames are the one photo.
    """
    values = (np.asarray(image, np.float64) / 255 - mean) / std
    rows, columns = values.shape[0] // side, values.shape[1] // side
    found = []
    for top, left in product(range(0, rows, 2), range(0, columns, 2)):
        for row, column in product((top, top + 1), (left, left + 1)):
            patch = values[row * side : (row + 1) * side, column * side : (column + 1) * side]
            frames = np.stack([patch, patch])  # (2, side, side, 3)
            found.append(frames.transpose(3, 0, 1, 2).ravel())
    return np.stack(found)


@pytest.mark.parametrize("size", [(90, 60), (411, 300), (28, 500)])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_tensors_follow_the_patch_arithmetic(
    folders: dict[str, Path], family: str, size: tuple[int, int]
) -> None:
    policy = TransformersPolicy.from_pretrained(folders[family], device="cpu", max_pixels=70_000)
    processor = policy.processor.image_processor
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    inputs = policy._inputs([[photo, photo.rotate(180)]], "What?")
    side = {"qwen2_5_vl": 14, "qwen3_vl": 16}[family]
    least = {"qwen2_5_vl": 3136, "qwen3_vl": 70_000 // 4}[family]
    height, width = resized(size[1], size[0], 2 * side, least, 70_000)
    grid = [1, height // side, width // side]
    assert inputs["image_grid_thw"].tolist() == [grid, grid]
    small = photo.resize((width, height), Image.Resampling.BICUBIC)
    expected = patches(small, side, processor.image_mean, processor.image_std)
    pixels = inputs["pixel_values"].numpy()
    assert pixels.shape == (2 * len(expected), 3 * 2 * side**2)
    np.testing.assert_allclose(pixels[: len(expected)], expected, atol=2e-6)
    placeholders = policy.processor.image_token_id
    assert (inputs["input_ids"] == placeholders).sum() == 2 * len(expected) // 4
    assert (inputs["mm_token_type_ids"] == 1).equal(inputs["input_ids"] == placeholders)


@pytest.mark.skipif(
    not is_torchvision_available(), reason="needs torchvision: without it there is no stock processor"
)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_image_only_processors_equal_the_stock_ones(folders: dict[str, Path], family: str) -> None:
    stock = AutoProcessor.from_pretrained(folders[family], backend="pil")
    ours = image_only(type(stock)).from_pretrained(folders[family], backend="pil")
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    inputs = [
        one(
            images=[draw("red", (200, 100))],
            text=one.apply_chat_template(chat, add_generation_prompt=True),
            return_tensors="pt",
        )
        for one in (stock, ours)
    ]
    assert inputs[0].keys() == inputs[1].keys()
    for name, tensor in inputs[0].items():
        assert torch.equal(tensor, inputs[1][name])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_a_saved_policy_is_a_stock_folder(
    policies: dict[str, TransformersPolicy], family: str, tmp_path: Path
) -> None:
    policy = policies[family]
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    named = json.loads((tmp_path / "processor_config.json").read_text())["processor_class"]
    assert named == {"qwen2_5_vl": "Qwen2_5_VLProcessor", "smolvlm": "SmolVLMProcessor"}[family]
    again = TransformersPolicy.from_pretrained(
        tmp_path, device="cpu", max_pixels=PIXELS, prompting=Prompting.PLAIN
    )
    first, second = (one.respond([[draw("red")]], Task.SIS, max_new_tokens=6)[0] for one in (policy, again))
    assert first.token_ids == second.token_ids


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_where_torchvision_is_a_saved_policy_has_what_its_video_part_reads(
    policies: dict[str, TransformersPolicy], family: str, tmp_path: Path
) -> None:
    """Transformers' own way to a video processor's parameters, which stock processors go through there."""
    folder = tmp_path / "saved"
    policies[family].processor.save_pretrained(folder)
    found, _ = VideoProcessorMixin.get_video_processor_dict(folder)
    assert tuple(found["image_mean"]) == tuple(policies[family].processor.image_processor.image_mean)
    policies[family].model.save_pretrained(folder)

    (folder / "preprocessor_config.json").unlink()  # as policies were saved before
    exported = export(Export(str(folder), tmp_path / "exported"))
    again, _ = VideoProcessorMixin.get_video_processor_dict(exported)
    assert again == found


def test_shrinking_keeps_the_shape_and_the_bound() -> None:
    image = draw("red", (600, 300))
    small = shrink(image, 20_000)
    assert small.size == (200, 100)
    assert shrink(small, 20_000) is small
    assert workable(image, 20_000) is image
    assert workable(Image.new("RGB", (1, 5)), 20_000).size == (28, 28)
    assert workable(Image.new("RGB", (9000, 40)), MAX_PIXELS).size == (4000, 40)


# Folders that are refused


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(name: str, **entries: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def pickle_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop_tensors(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "vision" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def text_only(folder: Path) -> None:
    sizes = {**tiny_policies.TEXT, "vocab_size": 64}
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained(folder)


def adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (pickle_weights, "its weights are pickled \\(pytorch_model.bin\\)"),
        (remove("model.safetensors"), "it has no weights"),
        (cut_weights, "no policy could be loaded"),
        (drop_tensors, "it lacks \\d+ of the model's tensors"),
        (edit("config.json", auto_map={"AutoModel": "evil.Model"}), "code of its own \\(evil.Model\\)"),
        (edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}), "code of its own"),
        (edit("config.json", text_config={"auto_map": {"AutoConfig": "evil.C"}}), "code of its own"),
        (lambda folder: [remove(name)(folder) for name in PROCESSOR], "it has no processor"),
        (remove("chat_template.json"), "it lacks a chat template"),
        (remove("config.json"), "it has no config.json"),
        (adapter, "an adapter without its model: merge it first"),
        (text_only, "no image-text-to-text model of type 'qwen2'"),
        (edit("config.json", model_type="unheard_of"), "unheard_of"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
    ],
)
def test_folders_that_are_no_policy_are_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(folders["llava"], folder)
    spoil(folder)
    with pytest.raises(SaliencyError, match=reason) as error:
        TransformersPolicy.from_pretrained(folder, device="cpu")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    assert len(str(error.value)) < 700


@pytest.fixture
def hub_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    checkpoint_check._on_the_hub.cache_clear()
    return tmp_path / "cache"


def test_the_copy_in_the_cache_serves_where_the_hub_is_away(
    folders: dict[str, Path], hub_is_away: Path
) -> None:
    repo = hub_is_away / "models--me--tiny"
    shutil.copytree(folders["llava"], repo / "snapshots" / "0123abcd")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123abcd")
    pipe = SaliencyPipeline.from_pretrained(
        "me/tiny", device="cpu", policy_options=PolicyOptions(max_pixels=PIXELS)
    )
    assert pipe.name == "me/tiny + nano"
    checkpoint_check._on_the_hub.cache_clear()
    with pytest.raises(SaliencyError, match="cannot be reached, and the cache"):
        TransformersPolicy.from_pretrained("me/tiny", device="cpu", revision="v2")


def test_a_hub_that_is_away_is_one_clear_line(hub_is_away: Path) -> None:
    reason = "'me/none': the hub cannot be reached, and the cache on this machine does not hold it"
    with pytest.raises(SaliencyError, match=reason) as error:
        TransformersPolicy.from_pretrained("me/none", device="cpu")
    assert "\n" not in str(error.value)


PROCESSOR = ("preprocessor_config.json", "processor_config.json")


def test_bad_options_are_refused(folders: dict[str, Path]) -> None:
    folder = folders["llava"]
    with pytest.raises(SaliencyError, match="unknown dtype 'int8': choose auto, float32"):
        TransformersPolicy.from_pretrained(folder, device="cpu", dtype="int8")
    with pytest.raises(SaliencyError, match="max_pixels is 100: give at least 3136"):
        TransformersPolicy.from_pretrained(folder, device="cpu", max_pixels=100)
    with pytest.raises(SaliencyError, match="unknown prompting 'loud': choose one of auto, plain, zero-shot"):
        TransformersPolicy.from_pretrained(folder, device="cpu", prompting="loud")
    with pytest.raises(SaliencyError, match="a file, expected the folder"):
        TransformersPolicy.from_pretrained(folder / "model.safetensors", device="cpu")


def test_a_device_map_without_accelerate_names_the_extra(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_r1.policy.transformers.is_accelerate_available", lambda: False)
    with pytest.raises(SaliencyError, match=r"saliency-r1\[large\]"):
        TransformersPolicy.from_pretrained(folders["llava"], device_map="auto")


# Prompting


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("reasoning", [True, False])
def test_the_prompt_explains_the_form_with_an_example_that_parses(task: Task, reasoning: bool) -> None:
    prompt = zero_shot_prompt(task, reasoning=reasoning)
    assert prompt.startswith(task.spec.question)
    example = prompt.rpartition("\n")[2]
    parsed = parse_strict(example, task)
    assert parsed.expressions == EXAMPLES[task].expressions
    assert bool(parsed.reasoning) == reasoning
    assert prompt in zero_shot_prompt(task, reasoning=reasoning, again=True)


def test_a_fine_tuned_model_is_known_by_its_mark(folders: dict[str, Path], tmp_path: Path) -> None:
    untaught = TransformersPolicy.from_pretrained(folders["llava"], device="cpu")
    assert untaught.zero_shot
    mark_fine_tuned(untaught.model.config)
    untaught.model.save_pretrained(tmp_path)
    untaught.processor.save_pretrained(tmp_path)
    assert not TransformersPolicy.from_pretrained(tmp_path, device="cpu").zero_shot
    assert TransformersPolicy.from_pretrained(tmp_path, device="cpu", prompting="zero-shot").zero_shot
    assert not TransformersPolicy.from_pretrained(device="cpu").zero_shot, "the nano policy is fine-tuned"


class Writer:
    """Says for each photo's colour the next of its texts, and keeps the prompts."""

    def __init__(self, **texts: list[str]) -> None:
        self.texts = {
            Image.new("RGB", (1, 1), colour).getpixel((0, 0)): said for colour, said in texts.items()
        }
        self.prompts: list[str] = []

    def __call__(self, batch: Questions, prompt: str, limit: int) -> list[PolicyOutput]:
        self.prompts.append(prompt)
        return [PolicyOutput(self.texts[image.getpixel((0, 0))].pop(0), []) for (image,) in batch]


RED, BLUE = ([Image.new("RGB", (4, 4), colour)] for colour in ("red", "blue"))
GOOD = "<think>It glows.</think><answer><rg>the lamp</rg></answer>"
OPEN = "<answer><rg>a lamp"


@pytest.mark.parametrize(
    ("said", "kept", "retries"),
    [
        ([GOOD], GOOD, 0),
        (["A lamp.", GOOD], GOOD, 1),
        (["A lamp.", OPEN], OPEN, 1),
        ([OPEN, "Sorry?"], OPEN, 1),
        (["Hm.", "Sorry?"], "Hm.", 1),
    ],
)
def test_a_response_that_does_not_parse_gets_a_second_try(said: list[str], kept: str, retries: int) -> None:
    write = Writer(red=list(said), blue=[GOOD])
    red, blue = ask(write, [RED, BLUE], Task.SOD, zero_shot=True)
    assert (red.text, red.retries) == (kept, retries)
    assert (blue.text, blue.retries) == (GOOD, 0)
    expected = [zero_shot_prompt(Task.SOD, again=again) for again in (False, True)]
    assert write.prompts == expected[: 1 + retries]


def test_a_fine_tuned_policy_is_asked_plainly_and_once() -> None:
    write = Writer(red=["Hm."])
    [output] = ask(write, [RED], Task.SOD, zero_shot=False, reasoning=False)
    assert output == PolicyOutput("Hm.", [])
    assert write.prompts == ["What stands out in this image? Answer at once."]
    with pytest.raises(SaliencyError, match="without an image"):
        ask(write, [[]], Task.SOD, zero_shot=True)


class OnceMore(PolicyStub):
    """Took a second try for every answer, and is not sure of any."""

    name = "once more"

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        return PolicyOutput(GOOD, [], retries=1)


def test_results_tell_the_second_tries_and_no_confidence_of_words_without_one() -> None:
    pipe = SaliencyPipeline(OnceMore(), NanoSegmenter.from_pretrained(device="cpu"))
    result = pipe(draw("red"))
    assert result.to_dict()["retries"] == 1
    assert result.policy_confidence is None
    group = pipe([draw("red")] * 7, Task.COSOD)
    assert {one.retries for one in group} == {2}, "two chunks"


def test_predict_takes_a_folder_and_the_options(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    draw("red").save(photo)
    policy = ["--policy", str(folders["qwen2_5_vl"]), "--device", "cpu"]
    options = ["--prompting", "plain", "--max-pixels", str(PIXELS), "--dtype", "bfloat16"]
    assert main(["predict", str(photo), *policy, *options, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["model"].startswith("qwen2_5_vl + ")
    assert 0 <= said["policy_confidence"] <= 1
    assert said["retries"] == 0
    expected = TransformersPolicy.from_pretrained(
        folders["qwen2_5_vl"], device="cpu", dtype="bfloat16", max_pixels=PIXELS, prompting="plain"
    ).respond([[load_image(photo)]], Task.SOD)
    assert said["text"] == expected[0].text
