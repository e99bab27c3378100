"""Fine-tuning examples to batches of token ids and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from saliency_r1.training.features import FeatureCache, Key, read_photo
from saliency_r1.writing.sft_set import SFTExample

IGNORED = -100


def prompt_text(processor: Any, prompt: str, images: int) -> str:
    """The prompt as the model reads it, up to where the response begins, each image still one placeholder."""
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": prompt}]
    conversation = [{"role": "user", "content": content}]
    return processor.apply_chat_template(conversation, add_generation_prompt=True)


def tokenise(examples: Sequence[SFTExample], processor: Any) -> Dataset:
    """Rows of `input_ids`, `labels` (the response and its end alone), `images`, `mirrored`, `length`."""
    tokenizer = processor.tokenizer
    holders = processor.replace_image_token({}, 0)
    known: dict[tuple[str, int], list[int]] = {}
    rows = []
    for example in examples:
        asked = (example.prompt, len(example.images))
        if asked not in known:
            text = prompt_text(processor, *asked).replace(processor.image_token, holders)
            known[asked] = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt = known[asked]
        response = tokenizer(example.response, add_special_tokens=False)["input_ids"]
        response = [*response, tokenizer.eos_token_id]
        rows.append(
            {
                "input_ids": prompt + response,
                "labels": [IGNORED] * len(prompt) + response,
                "images": list(example.images),
                "mirrored": example.mirrored,
                "length": len(prompt) + len(response),
            }
        )
    return Dataset.from_list(rows)


class Pictures:
    """Pictures as the model takes them: from a feature cache if there is one, else read from their files.

    Args:
        processor: the model's.
        root: where relative photo paths begin.
        cache: filled with every photo that will be asked for.
    """

    def __init__(self, processor: Any, root: str | Path, cache: FeatureCache | None = None) -> None:
        self._processor, self._root, self._cache = processor, Path(root), cache

    def __call__(self, keys: Sequence[Key]) -> dict[str, torch.Tensor]:
        """`image_features` or `pixel_values` of these photos."""
        if self._cache is not None:
            return {"image_features": self._cache.read(keys)}
        images = [read_photo(key, self._root) for key in keys]
        return {"pixel_values": self._processor.image_processor(images, return_tensors="pt")["pixel_values"]}


class Collator:
    """Batches rows of `tokenise`, padded on the right.

    Args:
        pad_token_id: what fills `input_ids`.
        pictures: gives the pictures.
    """

    def __init__(self, pad_token_id: int, pictures: Pictures) -> None:
        self._pad, self._pictures = pad_token_id, pictures

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        longest += -longest % 8
        ids = torch.full((len(rows), longest), self._pad)
        labels = torch.full((len(rows), longest), IGNORED)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for index, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[index, :length] = torch.tensor(row["input_ids"])
            labels[index, :length] = torch.tensor(row["labels"])
            mask[index, :length] = 1
        keys = [(path, row["mirrored"]) for row in rows for path in row["images"]]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **self._pictures(keys)}
