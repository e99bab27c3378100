"""SIS examples of a fine-tuning set: photos with instance masks, and composed scenes.

A line: `{"name": "scene 12", "images": ["…/scenes/train/000012.webp"], "mirrored": false, "task": "sis",
"prompt": "Which instances stand out in this image?", "response":
"<think>…</think><answer><ins>the left dog</ins><ins>the right dog</ins></answer>"}`

A scene's picture has its instance map beside it, `000012.png`: 0 where no object is, else its number from 1.
Instances come in reading order. A rationale is kept if the frozen segmenter finds each instance from its
expression; an expression that fails is reworded where another is true of the instance alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.instance_photos import category_nouns
from saliency_r1.data.instances import InstanceImage, decode
from saliency_r1.data.naming import NameBook
from saliency_r1.data.rationale_sis import (
    Called,
    consistent_instances,
    instance_facts,
    word_instances,
    write_instances,
)
from saliency_r1.data.scenes import Foregrounds, Scene, reading_order, scene_number
from saliency_r1.data.sft import Found, Job, SFTExample, SFTSetting, example_of, path_from
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.images import load_image
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.segmenters.base import Segmenter


def photo_jobs(
    photos: Iterable[tuple[InstanceImage, Sequence[str]]],
    segmenter: Segmenter,
    root: str | Path,
    setting: SFTSetting,
) -> list[Job]:
    """One job a photo.

    Args:
        photos: of 1 to 6 instances, with the category of each, as `instance_photos.select` gives them.
        segmenter: the frozen one that expressions must work with.
        root: photo paths begin there, where they can.
        setting: how.
    """
    make = partial(_of_photo, segmenter=segmenter, root=Path(root), setting=setting)
    return [
        Job(f"photo {photo.name}", Task.SIS, partial(make, photo, categories)) for photo, categories in photos
    ]


def scene_jobs(
    source: Foregrounds,
    count: int,
    folder: str | Path,
    segmenter: Segmenter,
    root: str | Path,
    names: NameBook,
    setting: SFTSetting,
) -> list[Job]:
    """One job a scene: it is composed, written as a picture, and asked about.

    Args:
        source: the foregrounds of one split.
        count: how many scenes, numbers 0 to count - 1 of the stream of the setting's seed.
        folder: where the pictures go.
        segmenter, root, setting: as of `photo_jobs`.
        names: how to call what is in them.
    """
    make = partial(
        _of_scene,
        source=source,
        folder=Path(folder),
        segmenter=segmenter,
        root=Path(root),
        names=names,
        setting=setting,
    )
    return [Job(f"scene {number}", Task.SIS, partial(make, number)) for number in range(count)]


def write_scene(scene: Scene, path: Path) -> Image.Image:
    """Write a scene as WebP, and give the picture as it will be read."""
    buffer = BytesIO()
    Image.fromarray(scene.image).save(buffer, "WEBP", quality=92)
    write_bytes_atomic(path, buffer.getvalue())
    return load_image(buffer.getvalue())


def instance_map(scene: Scene) -> bytes:
    """A PNG, grey: 0 where no object is, else its number from 1."""
    numbers = np.zeros(scene.image.shape[:2], np.uint8)
    for number, each in enumerate(scene.objects, start=1):
        numbers[each.mask] = number
    buffer = BytesIO()
    Image.fromarray(numbers).save(buffer, "PNG")
    return buffer.getvalue()


def _of_photo(
    photo: InstanceImage, categories: Sequence[str], *, segmenter: Segmenter, root: Path, setting: SFTSetting
) -> tuple[list[SFTExample], list[str]]:
    image = load_image(photo.image)
    if image.size != (photo.width, photo.height):
        raise SaliencyError(f"{photo.image}: is {image.size}, its masks are of {(photo.width, photo.height)}")
    masks = [decode(each.mask) for each in photo.instances]
    called = [Called.of_nouns(category_nouns(category)) for category in categories]
    path = path_from(root, photo.image)
    examples: list[SFTExample] = []
    outcomes: list[str] = []
    for mirrored in (False, True) if setting.mirror else (False,):
        if mirrored:
            image, masks = ImageOps.mirror(image), [mask[:, ::-1] for mask in masks]
        rng = Random(f"{setting.seed} photo {photo.name} {mirrored}")
        for reasoning, expressions in _answers(image, masks, called, segmenter, setting, rng, outcomes):
            examples.append(example_of(photo.name, [path], mirrored, Task.SIS, reasoning, expressions))
    return examples, outcomes


def _of_scene(
    number: int,
    *,
    source: Foregrounds,
    folder: Path,
    segmenter: Segmenter,
    root: Path,
    names: NameBook,
    setting: SFTSetting,
) -> tuple[list[SFTExample], list[str]]:
    scene = scene_number(source, setting.seed, number)
    path = folder / f"{number:06d}.webp"
    image = write_scene(scene, path)
    outcomes: list[str] = []
    rng = Random(f"{setting.seed} scene {number}")
    answers = _answers(
        image,
        [each.mask for each in scene.objects],
        [Called.of_synset(each.synset, names) for each in scene.objects],
        segmenter,
        setting,
        rng,
        outcomes,
    )
    if answers:
        write_bytes_atomic(path.with_suffix(".png"), instance_map(scene))
    else:
        path.unlink()
    images = [path_from(root, path)]
    examples = [
        example_of(f"scene {number}", images, False, Task.SIS, reasoning, expressions)
        for reasoning, expressions in answers
    ]
    return examples, outcomes


def _answers(
    image: Image.Image,
    masks: Sequence[np.ndarray],
    called: Sequence[Called],
    segmenter: Segmenter,
    setting: SFTSetting,
    rng: Random,
    outcomes: list[str],
) -> list[tuple[str, tuple[str, ...]]]:
    """Reasoning, empty for one without, and expressions of each rationale that works with the segmenter."""
    order = reading_order(masks)
    masks = [masks[index] for index in order]
    facts = instance_facts(image, masks, [called[index] for index in order])
    found = Found(segmenter, image)
    written = [word_instances(facts, rng) for _ in range(setting.variants)]
    found.add(options[0].expression for wordings in written for options in wordings if options)
    answers = []
    for wordings in written:
        chosen, outcome = consistent_instances(
            wordings, found, masks, setting.minimum_iou, setting.minimum_found
        )
        outcomes.append(outcome)
        fast = rng.random() < setting.fast_share
        if chosen is not None:
            rationale = write_instances(facts, chosen, rng)
            answers.append(("" if fast else rationale.reasoning, rationale.expressions))
    return answers
