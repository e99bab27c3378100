"""CoSOD examples of a fine-tuning set: groups of photos of one synset, and composed groups with distractors.

A line: `{"name": "group n02084071", "images": ["…/n02084071_1.webp", "…/n02084071_7.webp", …], "mirrored":
false, "task": "cosod", "prompt": "Which salient object do these images share?", "response":
"<think>…</think><answer><rg>the dog</rg></answer>"}`

An example shows 3 to 6 images. Its expression is kept if the frozen segmenter finds the shared object in
them, by the mean IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.samples import Sample, Synset
from saliency_r1.language.cues import Cues, measure
from saliency_r1.masks import iou
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.scenes import Scene, compose_group
from saliency_r1.tasks import Task
from saliency_r1.writing.rationale_cosod import (
    MOST_IMAGES,
    GroupImage,
    GroupRationale,
    word_group,
    write_group,
)
from saliency_r1.writing.sft_instances import write_picture
from saliency_r1.writing.sft_set import Found, Job, SFTExample, SFTMaker, example_of, read_truth

Item = TypeVar("Item")

LEAST_IMAGES = 3
_POOL = 10
"""Photos of a group that its examples are drawn from: each must be looked at, and often mirrored too."""


@dataclass(frozen=True)
class _Seen:
    """A picture of the shared object: cues of its mask, what else is there, the IoU of each expression."""

    path: str
    cues: Cues
    others: tuple[Synset, ...] = ()
    ious: dict[str, float] = field(default_factory=dict)


def group_jobs(groups: Mapping[str, Sequence[Sample]], draws: int, maker: SFTMaker) -> list[Job]:
    """One job a group of photos of one synset.

    Args:
        groups: the photos of each synset's number, with masks and synset; fewer than 3 give none.
        draws: examples of each group.
        maker: what the examples are made with; half of them are mirrored if its setting says so. The
            setting's `variants` are not used.
    """
    make = partial(_of_group, draws=draws, maker=maker)
    return [
        Job(f"group {number}", Task.COSOD, partial(make, number, samples))
        for number, samples in groups.items()
        if len(samples) >= LEAST_IMAGES
    ]


def composed_group_jobs(source: Foregrounds, count: int, folder: Path, maker: SFTMaker) -> list[Job]:
    """One job a composed group of six scenes, in each of which something outdoes the shared object.

    Args:
        source: the foregrounds of one split.
        count: how many groups.
        folder: where the pictures go.
        maker: what the examples are made with; twice its setting's `variants` examples of each group, of 3
            to 6 of its scenes.
    """
    make = partial(_of_composed, source=source, folder=folder, maker=maker)
    return [Job(f"composed group {number}", Task.COSOD, partial(make, number)) for number in range(count)]


def _of_group(
    number: str, samples: Sequence[Sample], *, draws: int, maker: SFTMaker
) -> tuple[list[SFTExample], list[str]]:
    shared = next((sample.synset for sample in samples if sample.synset), None)
    if shared is None:
        return [], []
    setting = maker.setting
    rng = Random(f"{setting.seed} group {number}")
    seen: dict[tuple[str, bool], _Seen] = {}
    every = [wording.expression for wording in word_group(shared, (), Random(0), maker.names)]

    def look(sample: Sample, mirrored: bool) -> _Seen:
        if (sample.name, mirrored) not in seen:
            image, truth = read_truth(sample)
            if mirrored:
                image, truth = ImageOps.mirror(image), truth[:, ::-1]
            seen[sample.name, mirrored] = _look(image, truth, sample.image, every, maker)
        return seen[sample.name, mirrored]

    examples: list[SFTExample] = []
    outcomes: list[str] = []
    pool = rng.sample(list(samples), min(_POOL, len(samples)))
    for _ in range(draws):
        chosen = _draw(pool, rng)
        mirrored = setting.mirror and rng.random() < 0.5
        images = [look(sample, mirrored) for sample in chosen]
        fast = rng.random() < setting.fast_share
        rationale, outcome = _answer(images, shared, (), maker, rng)
        outcomes.append(outcome)
        if rationale is not None:
            examples.append(_example(f"group {number}", images, mirrored, rationale, fast))
    return examples, outcomes


def _of_composed(
    number: int, *, source: Foregrounds, folder: Path, maker: SFTMaker
) -> tuple[list[SFTExample], list[str]]:
    setting = maker.setting
    # The third number keeps the stream apart from that of the scenes.
    scenes, shared = compose_group(source, np.random.default_rng((setting.seed, number, 1)), MOST_IMAGES)
    rng = Random(f"{setting.seed} composed group {number}")
    others = [synset for scene in scenes for synset in _others(scene, shared)]
    every = [wording.expression for wording in word_group(shared, others, Random(0), maker.names)]
    images = []
    for index, scene in enumerate(scenes):
        path = folder / f"{number:05d}-{index}.webp"
        picture = write_picture(Image.fromarray(scene.image), path)
        truth = np.any([each.mask for each in scene.objects if each.synset == shared], axis=0)
        images.append(_look(picture, truth, path, every, maker, _others(scene, shared)))
    examples: list[SFTExample] = []
    outcomes: list[str] = []
    for _ in range(2 * setting.variants):
        chosen = _draw(images, rng)
        fast = rng.random() < setting.fast_share
        if set.intersection(*({maker.names.name(other) for other in image.others} for image in chosen)):
            continue  # few of the scenes may share a second thing
        rationale, outcome = _answer(chosen, shared, others, maker, rng)
        outcomes.append(outcome)
        if rationale is not None:
            examples.append(_example(f"composed group {number}", chosen, False, rationale, fast))
    used = {path for example in examples for path in example.images}
    for index, image in enumerate(images):
        if image.path not in used:
            (folder / f"{number:05d}-{index}.webp").unlink()
    return examples, outcomes


def _example(
    name: str, images: Sequence[_Seen], mirrored: bool, rationale: GroupRationale, fast: bool
) -> SFTExample:
    reasoning = "" if fast else rationale.reasoning
    paths = [image.path for image in images]
    return example_of(name, paths, mirrored, Task.COSOD, reasoning, rationale.expressions, [rationale.noun])


def _others(scene: Scene, shared: Synset) -> tuple[Synset, ...]:
    return tuple(each.synset for each in scene.objects if each.synset and each.synset != shared)


def _draw(items: Sequence[Item], rng: Random) -> list[Item]:
    """3 to 6 of them, in any order."""
    return rng.sample(list(items), rng.randint(LEAST_IMAGES, min(MOST_IMAGES, len(items))))


def _look(
    image: Image.Image,
    truth: np.ndarray,
    path: Path,
    expressions: Sequence[str],
    maker: SFTMaker,
    others: tuple[Synset, ...] = (),
) -> _Seen:
    found = Found(maker.segmenter, image)
    found.add(expressions)
    ious = {text: iou(found(text), truth) for text in expressions}
    return _Seen(maker.path(path), measure(image, truth), others, ious)


def _answer(
    images: Sequence[_Seen],
    shared: Synset,
    others: Sequence[Synset],
    maker: SFTMaker,
    rng: Random,
) -> tuple[GroupRationale | None, str]:
    """The rationale of these images that works with the segmenter, and what became of the first one."""
    wordings = word_group(shared, others, rng, maker.names)
    for wording in wordings:
        if np.mean([image.ious[wording.expression] for image in images]) >= maker.setting.minimum_group_iou:
            group = [GroupImage(image.cues, image.others) for image in images]
            outcome = "kept" if wording is wordings[0] else wording.step.value
            return write_group(group, wording, rng, maker.names), outcome
    return None, "dropped"
