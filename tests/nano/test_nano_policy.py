"""The nano policy: model, processor and tokenizer as transformers uses them, and the policy around them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from saliency_r1 import nano
from saliency_r1.errors import SaliencyError
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.processing import NanoImageProcessor, NanoProcessor
from saliency_r1.nano.segmenter_model import NanoSegmenterModel
from saliency_r1.nano.tokenizer import TAGS, train_tokenizer
from saliency_r1.nano.vision import FEATURES, VisionTower, lab
from saliency_r1.policy.base import Policy
from saliency_r1.policy.confidence import confidence, expression_tokens
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.segmenters.nano import EMBEDDED
from saliency_r1.tasks import Task

CORPUS = [
    "user\nassistant",
    *(task.spec.prompt(reasoning=reasoning) for task in Task for reasoning in (True, False)),
    "<think>The red disc is large.</think><answer><rg>the red disc</rg></answer>",
    "<think>A small blue square stands out.</think><answer><rg>the blue square</rg></answer>",
] * 3
RESPONSE = "<think>The red disc is large.</think><answer><rg>the red disc</rg></answer>"


def draw(colour: str, shape: str = "disc", size: tuple[int, int] = (90, 60)) -> Image.Image:
    image = Image.new("RGB", size, "green")
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "disc" else pen.rectangle)((20, 10, 60, 50), fill=colour)
    return image


@pytest.fixture(scope="module")
def processor() -> NanoProcessor:
    return NanoProcessor(NanoImageProcessor(), train_tokenizer(CORPUS, 420))


@pytest.fixture(scope="module")
def model(processor: NanoProcessor) -> NanoForImageTextToText:
    tokenizer = processor.tokenizer
    torch.manual_seed(0)
    config = NanoConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        adapter_layers=1,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return NanoForImageTextToText(config).eval()


@pytest.fixture(scope="module")
def folder(
    model: NanoForImageTextToText, processor: NanoProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("policy")
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def batch(processor: NanoProcessor, *prompts: tuple[str, list[Image.Image]]) -> dict[str, torch.Tensor]:
    chats = [
        [{"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}]}]
        for text, images in prompts
    ]
    texts = processor.apply_chat_template(chats, add_generation_prompt=True)
    images = [images for _, images in prompts]
    return processor(images=images, text=texts, padding=True, return_tensors="pt")


def test_prompt_holds_64_placeholders_for_each_image(processor: NanoProcessor) -> None:
    inputs = batch(processor, ("Which?", [draw("red"), draw("blue")]))
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 128
    assert inputs["pixel_values"].shape == (2, 3, 256, 256)
    assert inputs["pixel_values"].dtype == torch.float32
    text = processor.tokenizer.decode(inputs["input_ids"][0]).replace("<image>", "")
    assert text == "<|im_start|>user\nWhich?<|im_end|><|im_start|>assistant\n"


def test_pixels_are_normalised_like_the_backbone_wants(processor: NanoProcessor) -> None:
    pixels = processor.image_processor(Image.new("RGB", (31, 17), (0, 127, 255)), return_tensors="pt")[
        "pixel_values"
    ]
    expected = torch.tensor([-127 / 128, 0.0, 1.0])
    assert torch.allclose(pixels[0].mean((1, 2)), expected, atol=2e-3)


def test_grey_and_alpha_pictures_are_taken(processor: NanoProcessor) -> None:
    pictures = [draw("red").convert(mode) for mode in ("L", "RGBA", "P", "CMYK")]
    assert processor.image_processor(pictures, return_tensors="pt")["pixel_values"].shape[0] == 4


def test_logits_have_the_vocabulary_and_loss_is_finite(
    model: NanoForImageTextToText, processor: NanoProcessor
) -> None:
    inputs = batch(processor, ("What stands out?", [draw("red")]))
    output = model(**inputs, labels=inputs["input_ids"])
    assert output.logits.shape == (*inputs["input_ids"].shape, len(processor.tokenizer))
    assert math.isfinite(output.loss.item())
    assert model.model.encode_images(inputs["pixel_values"]).shape == (1, 64, FEATURES)


def test_the_tower_sees_what_the_segmenter_sees(processor: NanoProcessor) -> None:
    trained = NanoSegmenterModel.from_pretrained(EMBEDDED)
    tower = VisionTower()
    tower.load_segmenter(EMBEDDED)
    pixels = processor.image_processor([draw("red")], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        features = tower(pixels)[0]
        f32 = trained.backbone(pixels)[-1]
        head = trained.semantics_of(pixels)
    torch.testing.assert_close(features[:, :1280], head[0].flatten(1).T)
    torch.testing.assert_close(features[:, 1280:1600], f32[0].flatten(1).T)
    with pytest.raises(SaliencyError, match="holds no nano segmenter"):
        tower.load_segmenter(Path("nowhere"))


def test_lab_of_known_colours() -> None:
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).T[None, :, :, None]
    expected = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]])
    assert torch.allclose(100 * lab(rgb)[0, :, :, 0].T, expected, atol=0.05)


def test_auto_classes_give_the_same_model_back(
    model: NanoForImageTextToText, processor: NanoProcessor, folder: Path
) -> None:
    nano.register()
    nano.register()
    assert isinstance(AutoConfig.from_pretrained(folder), NanoConfig)
    loaded = AutoModelForImageTextToText.from_pretrained(folder).eval()
    again = AutoProcessor.from_pretrained(folder)
    assert isinstance(loaded, NanoForImageTextToText)
    assert isinstance(again, NanoProcessor)
    assert isinstance(again.image_processor, NanoImageProcessor)
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    assert not any(weight.requires_grad for weight in loaded.model.vision_tower.parameters())
    inputs = batch(processor, ("What stands out?", [draw("red")]))
    same = batch(again, ("What stands out?", [draw("red")]))
    assert torch.equal(inputs["input_ids"], same["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**same).logits)
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_cached_decoding_equals_full_forward(model: NanoForImageTextToText, processor: NanoProcessor) -> None:
    inputs = batch(processor, ("What stands out?", [draw("red"), draw("blue")]))
    options = {
        "max_new_tokens": 8,
        "min_new_tokens": 8,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    cached = model.generate(**inputs, **options, do_sample=False)
    steps = torch.stack(cached.logits, dim=1)
    mask = torch.ones_like(cached.sequences)
    with torch.no_grad():
        full = model(cached.sequences, pixel_values=inputs["pixel_values"], attention_mask=mask).logits
    assert torch.allclose(steps, full[:, -9:-1], atol=1e-4)
    uncached = model.generate(**inputs, **options, do_sample=False, use_cache=False)
    assert torch.equal(uncached.sequences, cached.sequences)


def test_left_padded_batch_equals_single(model: NanoForImageTextToText, processor: NanoProcessor) -> None:
    asked = [
        ("What?", [draw("red")]),
        ("Which salient object do these images share?", [draw("blue"), draw("red", "square")]),
        ("What stands out in this image?", [draw("white", "square")]),
    ]
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    together = model.generate(**batch(processor, *asked), **options)
    for row, question in enumerate(asked):
        alone = model.generate(**batch(processor, question), **options)
        for first, second in zip(together.logits, alone.logits, strict=True):
            assert torch.allclose(first[row], second[0], atol=1e-4)


def test_each_image_and_their_order_matter(model: NanoForImageTextToText, processor: NanoProcessor) -> None:
    def last(*images: Image.Image) -> torch.Tensor:
        with torch.no_grad():
            return model(**batch(processor, ("Which?", list(images)))).logits[0, -1]

    base = last(draw("red"), draw("blue"))
    assert not torch.allclose(base, last(draw("blue"), draw("red")), atol=1e-4)
    assert not torch.allclose(base, last(draw("red"), draw("white")), atol=1e-4)


def test_several_continuations_keep_their_images(
    model: NanoForImageTextToText, processor: NanoProcessor
) -> None:
    asked = [("Which?", [draw("red"), draw("blue")]), ("Which?", [draw("white"), draw("black")])]
    options = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_logits": True, "do_sample": True}
    once = model.generate(**batch(processor, *asked), **{**options, "do_sample": False})
    twice = model.generate(**batch(processor, *asked), num_return_sequences=2, **options)
    assert torch.allclose(twice.logits[0], once.logits[0].repeat_interleave(2, dim=0), atol=1e-5)


def test_features_in_place_of_pixels(model: NanoForImageTextToText, processor: NanoProcessor) -> None:
    inputs = batch(processor, ("What?", [draw("red")]))
    features = model.model.encode_images(inputs["pixel_values"])
    rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**rest, image_features=features).logits)
    first = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    second = model.generate(**rest, image_features=features, max_new_tokens=4, do_sample=False)
    assert torch.equal(first, second)


def test_placeholders_without_their_image_are_refused(
    model: NanoForImageTextToText, processor: NanoProcessor
) -> None:
    inputs = batch(processor, ("Which?", [draw("red"), draw("blue")]))
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    with pytest.raises(ValueError, match="do not match"):
        model(**inputs)


def test_bfloat16_autocast_is_close(model: NanoForImageTextToText, processor: NanoProcessor) -> None:
    inputs = batch(processor, ("What?", [draw("red")]))
    with torch.no_grad():
        exact = model(**inputs).logits
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(**inputs).logits
    assert torch.allclose(exact, rough.float(), atol=0.1)


def test_lora_trains_the_adapter_weights_alone(
    model: NanoForImageTextToText, processor: NanoProcessor
) -> None:
    peft = pytest.importorskip("peft")
    copy = NanoForImageTextToText(model.config)
    wrapped = peft.get_peft_model(copy, peft.LoraConfig(target_modules=["q_proj", "v_proj", "qkv"], r=2))
    inputs = batch(processor, ("What?", [draw("red")]))
    wrapped(**inputs, labels=inputs["input_ids"]).loss.backward()
    trained = {name for name, weight in wrapped.named_parameters() if weight.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)


def test_tags_are_one_token_and_survive_skip_special_tokens(processor: NanoProcessor) -> None:
    tokenizer = processor.tokenizer
    assert all(len(tokenizer(tag)["input_ids"]) == 1 for tag in TAGS)
    ids = tokenizer(RESPONSE + "<|im_end|><|pad|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == RESPONSE


@pytest.mark.parametrize(
    "text",
    ["", " ", "naïve café", "日本語 ✓", "🦊🐕‍🦺", "a\tb\n\n c  d", "\x00\x7f", "ﬁ İ ß", "it's 3.5 < 4 <b>"],
)
def test_any_text_comes_back(processor: NanoProcessor, text: str) -> None:
    tokenizer = processor.tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_common_words_are_one_token() -> None:
    tokenizer = train_tokenizer(CORPUS, 600)
    words = "What stands out in this image?"
    assert len(tokenizer(words)["input_ids"]) == 7


def test_policy_answers_with_tokens_and_confidence(
    model: NanoForImageTextToText, processor: NanoProcessor, folder: Path
) -> None:
    policy = TransformersPolicy.from_pretrained(folder, device="cpu")
    assert isinstance(policy, Policy)
    items = [[draw("red")], [draw("blue"), draw("red")]]
    outputs = policy.respond(items, Task.COSOD, max_new_tokens=5)
    assert len(outputs) == 2
    for item, output in zip(items, outputs, strict=True):
        assert output.text == processor.tokenizer.decode(output.token_ids, skip_special_tokens=True)
        assert output.token_logprobs is not None
        inputs = batch(processor, (Task.COSOD.spec.prompt(), item))
        ids = torch.cat([inputs["input_ids"], torch.tensor([output.token_ids])], dim=1)
        with torch.no_grad():
            logits = model(ids, pixel_values=inputs["pixel_values"]).logits[
                0, -len(output.token_ids) - 1 : -1
            ]
        # The tags of SIS are ruled out.
        logits[:, processor.tokenizer.convert_tokens_to_ids(["<ins>", "</ins>"])] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, torch.tensor(output.token_ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(output.token_logprobs), expected, atol=1e-4)
        assert output.confidence == pytest.approx(expected.mean().exp().item(), abs=1e-4)
    assert policy.respond([], Task.SOD) == []


def test_sampled_logprobs_are_of_the_tempered_distribution(folder: Path) -> None:
    policy = TransformersPolicy.from_pretrained(folder, device="cpu")
    torch.manual_seed(1)
    [output] = policy.respond([[draw("red")]], Task.SOD, max_new_tokens=3, do_sample=True, temperature=0.5)
    inputs = batch(policy.processor, (Task.SOD.spec.prompt(), [draw("red")]))
    with torch.no_grad():
        logits = policy.model(**inputs).logits[0, -1]
    assert output.token_logprobs is not None
    expected = (logits / 0.5).log_softmax(-1)[output.token_ids[0]].item()
    assert output.token_logprobs[0] == pytest.approx(expected, abs=1e-4)


def test_missing_policies_are_one_line_errors(tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="no policy could be loaded") as error:
        TransformersPolicy.from_pretrained(tmp_path, device="cpu")
    assert "\n" not in str(error.value)


def test_expression_tokens_and_confidence() -> None:
    pieces = ["<think>", "a", "</think>", "<answer>", "<rg>", "the", " dog", "</rg>", "</answer>", ""]
    assert [index for index, inside in enumerate(expression_tokens(pieces)) if inside] == [5, 6]
    logprobs = [0.0, -9.0, 0.0, 0.0, 0.0, -1.0, -3.0, 0.0, 0.0, 0.0]
    assert confidence(logprobs, pieces) == pytest.approx(math.exp(-2))
    assert confidence([-1.0, -3.0], ["no", " tags"]) == pytest.approx(math.exp(-2))
    assert confidence([], []) is None
    two = ["<answer>", "<ins>", "a", "</ins>", "<ins>", "b", "</ins>", "</answer>"]
    assert [index for index, inside in enumerate(expression_tokens(two)) if inside] == [2, 5]
    straddling = ["<answer><r", "g>the d", "og</rg", "></answer>"]
    assert expression_tokens(straddling) == [False, True, True, False]


def test_a_policy_without_a_reader_of_names_starts_one(folder: Path) -> None:
    """What a checkpoint lacks has to hold values, not what lay in memory."""
    tree = {"classes": ["n1", "n2"], "chains": [["pug", "dog"], ["mug"]]}
    started = NanoForImageTextToText.from_pretrained(folder, name_tree=tree)
    names = started.model.adapter.names
    assert names.temperature == 1
    assert names.blank.abs().sum() == 0
    assert (names.spelling == -1).all()
    assert started.config.image_tokens == started.config.cells + 21
