"""The questions that reinforcement learning asks, with the true masks that judge the answers, as JSON lines.

A line: `{"name": "n02084071_123", "task": "sod", "prompt": "What stands out in this image?", "images":
["DUTS-TR/DUTS-TR-Image/n02084071_123.webp"], "masks": [[{"size": [300, 400], "counts": "…"}]], "mirrored":
false, "names": [{"right": ["dog", "domestic dog", "canine"], "wider": ["mammal", "animal"]}]}`. `masks` holds
for each image a list of COCO run lengths: one an instance for SIS, the object (or nothing) for SOD and CoSOD.
`names`, which may be left out, says what each instance, or the object, is called. There are no responses: the
policy writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saliency_r1.data.true_instances import RunLengths, decode
from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic, read_text
from saliency_r1.tasks import Task


@dataclass(frozen=True)
class KnownNames:
    """The names that an object may have, as `saliency_r1.wording.normalised` writes them.

    Attributes:
        right: names, synonyms and the nearest hypernym.
        wider: words that are true of it and of much else.
    """

    right: tuple[str, ...]
    wider: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptExample:
    """One question and the masks of its true answer.

    Attributes:
        name: the photo's or the group's name.
        task: the task.
        prompt: the user's text.
        images: paths, absolute or from the data's root.
        masks: for each image the run lengths of its true masks; empty if nothing is salient.
        mirrored: whether images and masks are to be mirrored left to right.
        names: the names of each instance, in the order of the masks, or of the object; empty if
            unknown.

    Raises:
        SaliencyError: if there are not as many lists of masks as images, no image, or names of fewer or more
            things than there are.
    """

    name: str
    task: Task
    prompt: str
    images: tuple[str, ...]
    masks: tuple[tuple[RunLengths, ...], ...]
    mirrored: bool = False
    names: tuple[KnownNames, ...] = ()

    def __post_init__(self) -> None:
        if not self.images or len(self.images) != len(self.masks):
            raise SaliencyError(
                f"{self.name}: {len(self.images)} images and masks of {len(self.masks)}: "
                "expected a list of masks for each image, and at least one image"
            )
        things = len(self.masks[0]) if self.task.spec.several_expressions else 1
        if self.names and len(self.names) != things:
            raise SaliencyError(
                f"{self.name}: names of {len(self.names)} things: expected {things}, or none at all"
            )

    @property
    def keys(self) -> list[tuple[str, bool]]:
        """Path and `mirrored` of each image."""
        return [(path, self.mirrored) for path in self.images]

    @property
    def reasoning(self) -> bool:
        """Whether the prompt asks for reasoning."""
        return self.prompt != self.task.spec.prompt(reasoning=False)

    def truths(self, image: int) -> list[np.ndarray]:
        """The true masks of one of the images, bool (H, W) each, mirrored where the image is."""
        masks = [decode(mask) for mask in self.masks[image]]
        return [mask[:, ::-1] for mask in masks] if self.mirrored else masks

    def to_json(self) -> str:
        """Its line, without the line's end."""
        return json.dumps(asdict(self), ensure_ascii=False, default=bytes.decode)


def read_prompts(path: str | Path) -> list[PromptExample]:
    """The questions of a JSON lines file.

    Raises:
        SaliencyError: if the file or one of its lines cannot be read, or there is none.
    """
    lines = read_text(path).splitlines()
    examples = []
    for number, line in enumerate(lines, start=1):
        try:
            examples.append(_example(json.loads(line)))
        except (ValueError, KeyError, TypeError, SaliencyError) as error:
            raise SaliencyError(
                f"{path}:{number}: is no question with masks ({error!r}); make the file with "
                "`saliency-r1 data prompts`"
            ) from None
    if not examples:
        raise SaliencyError(f"{path}: holds no question")
    return examples


def write_prompts(path: str | Path, examples: Iterable[PromptExample]) -> int:
    """Write a JSON lines file in one step; how many lines it has."""
    count = 0
    with open_atomic(path) as file:
        for example in examples:
            file.write((example.to_json() + "\n").encode())
            count += 1
    return count


def _example(row: dict[str, Any]) -> PromptExample:
    return PromptExample(
        name=row["name"],
        task=Task.parse(row["task"]),
        prompt=row["prompt"],
        images=tuple(row["images"]),
        masks=tuple(
            tuple({"size": mask["size"], "counts": mask["counts"].encode()} for mask in group)
            for group in row["masks"]
        ),
        mirrored=bool(row.get("mirrored", False)),
        names=tuple(
            KnownNames(tuple(each["right"]), tuple(each.get("wider", ()))) for each in row.get("names", ())
        ),
    )
