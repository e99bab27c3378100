"""The questions of reinforcement learning, made from ground truth.

Their file is described in `saliency_r1.data.prompt_examples`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from saliency_r1.data.mask_files import load_grey, picture_size
from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.samples import Sample, spread
from saliency_r1.data.true_instances import InstanceImage, RunLengths, encode
from saliency_r1.errors import SaliencyError
from saliency_r1.masks import as_truth
from saliency_r1.tasks import Task


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
