"""Tiny random models of the families that policies come from, as folders of the layout on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from saliency_r1.policy.prompts import EXAMPLES, zero_shot_prompt
from saliency_r1.tasks import Task

END, PAD = "<|im_end|>", "<|endoftext|>"
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
QWEN_TOKENS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SMOL_TOKENS = (
    "<|im_start|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def _template(image: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
        f"{{% if c['type'] == 'image' %}}{image}"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _tokenizer(extra: Sequence[str], named: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer with special tokens, of which a processor finds the named ones as its attributes."""
    special = (PAD, END, *extra, *(named or {}).values())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [zero_shot_prompt(task) for task in Task] + [EXAMPLES[task].text for task in Task]
    tokenizer.train_from_iterator(texts * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=named or list(extra),
        # As in some of the stock tokenizers: a policy must not rely on it.
        padding_side="right",
    )


def _save(
    folder: Path,
    model_class: Any,
    config: Any,
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    files: dict[str, dict[str, Any]],
) -> Path:
    torch.manual_seed(0)
    config.initializer_range = 0.3
    model = model_class(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # large enough that the next token hangs on the photo
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.repetition_penalty = 1.05  # as in Qwen2.5-VL's
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _text(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    ids = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return {**TEXT, "vocab_size": len(tokenizer), **ids, **more}


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS[1:])), strict=True))


def qwen2_5_vl(folder: Path) -> Path:
    tokenizer = _tokenizer(QWEN_TOKENS)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **_qwen_ids(tokenizer),
    )
    processor = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    template = _template("<|vision_start|><|image_pad|><|vision_end|>")
    files = {"preprocessor_config.json": processor}
    return _save(folder, Qwen2_5_VLForConditionalGeneration, config, tokenizer, template, files)


def qwen3_vl(folder: Path) -> Path:
    tokenizer = _tokenizer(QWEN_TOKENS)
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config=_text(tokenizer, head_dim=8, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        **_qwen_ids(tokenizer),
    )
    processor = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
    }
    video = {**processor, "video_processor_type": "Qwen3VLVideoProcessor"}
    del video["image_processor_type"]
    template = _template("<|vision_start|><|image_pad|><|vision_end|>")
    files = {"preprocessor_config.json": processor, "video_preprocessor_config.json": video}
    return _save(folder, Qwen3VLForConditionalGeneration, config, tokenizer, template, files)


def llava(folder: Path) -> Path:
    tokenizer = _tokenizer(("<|im_start|>", "<image>"))
    config = LlavaConfig(
        text_config=LlamaConfig(**_text(tokenizer)),
        vision_config=CLIPVisionConfig(**VISION, image_size=56, patch_size=14),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    image_processor = {
        "crop_size": {"height": 56, "width": 56},
        "size": {"shortest_edge": 56},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
    }
    processor = {
        "image_token": "<image>",
        "patch_size": 14,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
        "processor_class": "LlavaProcessor",
    }
    files = {"preprocessor_config.json": image_processor, "processor_config.json": processor}
    return _save(folder, LlavaForConditionalGeneration, config, tokenizer, _template("<image>\n"), files)


def _smol(folder: Path, model_class: Any, config_class: Any, name: str) -> Path:
    tokenizer = _tokenizer(SMOL_TOKENS)
    config = config_class(
        text_config=LlamaConfig(**_text(tokenizer)),
        vision_config={**VISION, "image_size": 32, "patch_size": 8, "max_image_size": {"longest_edge": 32}},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    image_processor = {
        "size": {"longest_edge": 128},
        "max_image_size": {"longest_edge": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_image_splitting": True,
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
    }
    processor = {"image_seq_len": 4, "processor_class": f"{name}Processor"}
    files = {"preprocessor_config.json": image_processor, "processor_config.json": processor}
    return _save(folder, model_class, config, tokenizer, _template("<image>"), files)


def smolvlm(folder: Path) -> Path:
    return _smol(folder, SmolVLMForConditionalGeneration, SmolVLMConfig, "SmolVLM")


def idefics3(folder: Path) -> Path:
    return _smol(folder, Idefics3ForConditionalGeneration, Idefics3Config, "Idefics3")


def internvl(folder: Path) -> Path:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(("<|im_start|>",), named)
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    image_processor = {
        "size": {"height": 28, "width": 28},
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": 12,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "processor_class": "InternVLProcessor",
    }
    processor = {"image_seq_length": 4, "processor_class": "InternVLProcessor"}
    files = {"preprocessor_config.json": image_processor, "processor_config.json": processor}
    template = _template("<IMG_CONTEXT>\n")
    return _save(folder, InternVLForConditionalGeneration, config, tokenizer, template, files)


def gemma3(folder: Path) -> Path:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = _tokenizer(("<|im_start|>",), named)
    boi, eoi, image = tokenizer.convert_tokens_to_ids(list(named.values()))
    config = Gemma3Config(
        text_config={**_text(tokenizer), "head_dim": 8, "sliding_window": 64},
        vision_config={"model_type": "siglip_vision_model", **VISION, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
    )
    image_processor = {
        "size": {"height": 32, "width": 32},
        "do_pan_and_scan": None,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
    }
    processor = {"image_seq_length": 4, "processor_class": "Gemma3Processor"}
    files = {"preprocessor_config.json": image_processor, "processor_config.json": processor}
    template = _template("<start_of_image>")
    return _save(folder, Gemma3ForConditionalGeneration, config, tokenizer, template, files)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    make.__name__: make for make in (qwen2_5_vl, qwen3_vl, llava, smolvlm, idefics3, internvl, gemma3)
}
