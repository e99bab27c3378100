"""The questions that reinforcement learning asks, with the true masks that judge the answers, as JSON lines.

A line: `{"name": "n02084071_123", "task": "sod", "prompt": "What stands out in this image?", "images":
["DUTS-TR/DUTS-TR-Image/n02084071_123.webp"], "masks": [[{"size": [300, 400], "counts": "…"}]], "mirrored":
false}`. `masks` holds for each image a list of COCO run lengths: one an instance for SIS, the object (or
nothing) for SOD and CoSOD. There are no responses: the policy writes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from saliency_r1.data.mask_files import as_truth, load_grey, picture_size
from saliency_r1.data.samples import Sample
from saliency_r1.data.true_instances import InstanceImage, RunLengths, decode, encode
from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic
from saliency_r1.tasks import Task


@dataclass(frozen=True)
class PromptExample:
    """One question and the masks of its true answer.

    Attributes:
        name: of the photo or the group.
        task: what is asked.
        prompt: the user's text.
        images: paths, absolute or from the data's root.
        masks: for each image the run lengths of its true masks; none where nothing is salient.
        mirrored: whether images and masks are to be mirrored left to right.

    Raises:
        SaliencyError: if there are not as many lists of masks as images, or no image.
    """

    name: str
    task: Task
    prompt: str
    images: tuple[str, ...]
    masks: tuple[tuple[RunLengths, ...], ...]
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not self.images or len(self.images) != len(self.masks):
            raise SaliencyError(
                f"{self.name}: {len(self.images)} images and masks of {len(self.masks)}: "
                "expected a list of masks for each image, and at least one image"
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
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SaliencyError(f"{path}: cannot be read ({error.strerror or error})") from None
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


def sod_prompts(samples: Iterable[Sample], root: Path) -> Iterator[PromptExample]:
    """A question for each photo.

    Args:
        samples: with masks.
        root: photo paths begin there, where they can.

    Raises:
        SaliencyError: at a sample, if it has no mask, or one of another size than the photo.
    """
    for sample in samples:
        yield _asked(Task.SOD, sample.name, [sample.image], [[_mask(sample)]], root)


def cosod_prompts(
    groups: dict[str, list[Sample]], root: Path, size: int, rng: Random
) -> Iterator[PromptExample]:
    """Questions about `size` photos of a group each, every photo in one; those left over are not used.

    Arguments and errors as of `sod_prompts`; `groups` are samples by the name of what they share.
    """
    for name, samples in groups.items():
        mixed = rng.sample(samples, len(samples))
        for start in range(0, len(mixed) - size + 1, size):
            chosen = mixed[start : start + size]
            masks = [[_mask(sample)] for sample in chosen]
            images = [sample.image for sample in chosen]
            yield _asked(Task.COSOD, f"{name}/{start // size}", images, masks, root)


def sis_prompts(images: Iterable[InstanceImage], root: Path) -> Iterator[PromptExample]:
    """A question for each photo with instances; crowds are left out. `root` as of `sod_prompts`."""
    for image in images:
        masks = [instance.mask for instance in image.instances if not instance.crowd]
        yield _asked(Task.SIS, image.name, [image.image], [masks], root)


def without_reasoning(example: PromptExample) -> PromptExample:
    """The same question, asked for the answer alone."""
    return replace(example, prompt=example.task.spec.prompt(reasoning=False))


def spread(examples: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of them, evenly spread over all; all of them for None or where there are fewer."""
    count = len(examples) if count is None else min(count, len(examples))
    return [examples[index * len(examples) // count] for index in range(count)]


def spread_groups(groups: dict[str, list[Sample]], size: int, count: int | None) -> dict[str, list[Sample]]:
    """As much of the groups as `count` questions of `size` photos need, evenly spread over all.

    All of them for None or where there are fewer.
    """
    questions = [name for name, samples in groups.items() for _ in range(len(samples) // size)]
    wanted = Counter(spread(questions, count))
    return {name: spread(groups[name], number * size) for name, number in wanted.items()}


def _asked(
    task: Task, name: str, images: Sequence[Path], masks: Sequence[Sequence[RunLengths]], root: Path
) -> PromptExample:
    paths = [
        (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()
        for path in images
    ]
    return PromptExample(name, task, task.spec.prompt(), tuple(paths), tuple(map(tuple, masks)))


def _mask(sample: Sample) -> RunLengths:
    if sample.mask is None:
        raise SaliencyError(f"{sample.name} has no mask: a reward is judged by one")
    truth = as_truth(load_grey(sample.mask))
    if picture_size(sample.image) != truth.shape:
        height, width = picture_size(sample.image)
        raise SaliencyError(
            f"{sample.mask}: is {truth.shape[1]}x{truth.shape[0]}, the photo is {width}x{height}"
        )
    return encode(truth)


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
    )
