"""Fine-tuning examples to batches of token ids and pictures."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset

from saliency_r1.nano.configuration import NAME_SLOTS
from saliency_r1.nano.name_reader import EMPTY, KEEP
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.tasks import Task
from saliency_r1.training.features import FeatureCache, Key, read_photo
from saliency_r1.writing.sft_set import SFTExample

IGNORED = -100


def prompt_text(processor: Any, prompt: str, images: int) -> str:
    """The prompt as the model reads it, up to where the response begins, each image still one placeholder."""
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": prompt}]
    conversation = [{"role": "user", "content": content}]
    return processor.apply_chat_template(conversation, add_generation_prompt=True)


def tokenise(
    examples: Sequence[SFTExample], processor: Any, words: Mapping[str, int] | None = None
) -> Dataset:
    """Rows of `input_ids`, `labels` (the response and its end alone), `images`, `mirrored`, `length`.

    Args:
        examples: what to learn.
        processor: the policy's.
        words: numbers of the words that the policy is told; then there are `names` too, see `told`.
    """
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
        if words is not None:
            rows[-1]["names"] = told(example, words)
    return Dataset.from_list(rows)


def told(example: SFTExample, words: Mapping[str, int]) -> list[int]:
    """Return what each slot of `NameReader` holds for an example's images: the words of its response.

    So the policy learns to say what it is told, whatever a reader would have read there. For SIS the first
    slot, of the whole region, is kept as it is read; for the other tasks those of instances are.
    """
    slots = [KEEP] * NAME_SLOTS
    if example.nouns is None:
        return slots
    numbers = [words.get(noun, KEEP) for noun in example.nouns]
    if example.task is Task.SIS:
        return [KEEP, *(numbers + [EMPTY] * NAME_SLOTS)[: NAME_SLOTS - 1]]
    return [*numbers[:1], *slots[len(numbers[:1]) :]]


def renamed(
    examples: Sequence[SFTExample], tree: NameTree, words: Collection[str], share: float, seed: int
) -> list[SFTExample]:
    """The examples, some of them with another name in place of theirs, in the response and in what is told.

    A training set holds a part of the names alone. So the policy learns to say a name that it is told because
    it is told it, and can say all of them.

    Args:
        examples: those whose response has one noun, a word of the tree, can be renamed.
        tree: the other name is of the same kind: it shares the widest word.
        words: the names that can be told.
        share: share of those examples.
        seed: random seed of the choices.
    """
    rng = Random(seed)
    kinds: dict[str, list[str]] = {}
    for chain in tree.chains:
        kinds.setdefault(chain[-1], []).extend(word for word in chain[:1] if word in words)
    plain = [chain[0] for chain in tree.chains if len(chain) == 1 and chain[0] in words]
    changed = []
    for example in examples:
        nouns = set(example.nouns or ())
        noun = nouns.pop() if len(nouns) == 1 else ""
        others: list[str] = []
        if noun in tree.below and rng.random() < share:
            widest = tree.chains[tree.below[noun][0]][-1]
            others = plain if widest == noun else kinds.get(widest, [])
        changed.append(_with_noun(example, noun, rng.choice(others)) if others else example)
    return changed


def _with_noun(example: SFTExample, noun: str, other: str) -> SFTExample:
    response = re.sub(rf"\b{re.escape(noun)}\b", other, example.response)
    return replace(example, response=response, nouns=(other,) * len(example.nouns or ()))


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
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, **self._pictures(keys)}
        if "names" in rows[0]:
            batch["image_names"] = torch.tensor([row["names"] for row in rows for _ in row["images"]])
        return batch
