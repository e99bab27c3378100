"""Questions as the data set that TRL's trainers read: chat prompt, images, and what the reward needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.memory import BoundedMemory
from saliency_r1.training.features import Key, read_photo

PHOTO_BYTES = 128 * 1024**2


class Photos:
    """Photos read from their files, the last ones kept: TRL asks for each several times.

    Args:
        root: where relative paths begin.
        seen: makes of a photo what the policy is shown, as `TransformersPolicy.seen` does.
    """

    def __init__(self, root: str | Path, seen: Callable[[Image.Image], Image.Image]) -> None:
        self._root, self._seen = Path(root), seen
        self._kept = BoundedMemory(PHOTO_BYTES)

    def __call__(self, key: Key) -> Image.Image:
        """The photo, RGB, mirrored if the key says so.

        Raises:
            SaliencyError: if it cannot be read.
        """
        image = self._kept.get(key)
        if image is None:
            image = read_photo(key, self._root)
            self._kept.put(key, image)
        return image

    def shown(self, key: Key) -> Image.Image:
        """The photo as the policy is shown it, in training as in prediction.

        Raises:
            SaliencyError: if it cannot be read.
        """
        image = self._kept.get(("shown", key))
        if image is None:
            whole = self(key)
            image = self._seen(whole)
            if image is not whole:
                self._kept.put(("shown", key), image)
        return image


def longest_question(processor: Any, examples: Sequence[PromptExample], photos: Photos) -> int:
    """The tokens of the question with the most photos, photos included.

    Args:
        processor: the policy's.
        examples: the questions, at least one.
        photos: reads their photos.
    """
    asked = max(examples, key=lambda example: len(example.keys))
    images = [photos.shown(key) for key in asked.keys]
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": asked.prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return int(processor(images=[images], text=[text], return_tensors="pt")["input_ids"].shape[1])


def prompt_dataset(examples: Sequence[PromptExample], photos: Photos) -> Dataset:
    """A data set with the columns `prompt` (chat messages), `images`, `photos`, `example`, `task` and `name`.

    `images` are the photos as the policy is shown them, `photos` the whole ones, to which the true masks
    belong. They are read when a row is asked for.
    """

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        chosen = [examples[number] for number in batch["number"]]
        return {
            "prompt": [[{"role": "user", "content": example.prompt}] for example in chosen],
            "images": [[photos.shown(key) for key in example.keys] for example in chosen],
            "photos": [[photos(key) for key in example.keys] for example in chosen],
            "example": chosen,
            "task": [str(example.task) for example in chosen],
            "name": [example.name for example in chosen],
        }

    return Dataset.from_dict({"number": list(range(len(examples)))}).with_transform(rows)
