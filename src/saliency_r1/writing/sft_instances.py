"""SIS examples of a fine-tuning set: photos with instance masks, and composed scenes.

A line: `{"name": "scene 12", "images": ["…/scenes/train/000012.webp"], "mirrored": false, "task": "sis",
"prompt": "Which instances stand out in this image?", "response":
"<think>…</think><answer><ins>the left dog</ins><ins>the right dog</ins></answer>"}`

A picture is written with its instance map beside it, `000012.png`: 0 where no object is, else its number from
1. Of further scenes all that stands out is asked for, with the question of SOD.
Instances come in reading order. Of more than six the six largest are listed, and the reasoning says that
there are more. A rationale is kept if the frozen segmenter finds each instance from its expression; an
expression that fails is reworded where another is true of the instance alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.samples import Sample
from saliency_r1.data.true_instances import InstanceImage, decode
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.images import load_image
from saliency_r1.language.cues import measure
from saliency_r1.masks import connected_parts
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import category_nouns
from saliency_r1.scenes.scenes import reading_order, scene_number
from saliency_r1.tasks import Task
from saliency_r1.writing.rationale_sis import (
    MOST_INSTANCES,
    Called,
    consistent_instances,
    instance_facts,
    listed_instances,
    word_instances,
    write_instances,
)
from saliency_r1.writing.sft_set import (
    Found,
    Job,
    SFTExample,
    SFTMaker,
    example_of,
    read_truth,
    sod_answers,
)

_PHOTO_VARIANTS = 2
EVERYTHING = "the salient objects"
"""The expression with which the segmenter shows which annotated instances are salient."""
_COVERED, _LARGE = 0.3, 0.05


def photo_jobs(
    photos: Iterable[tuple[InstanceImage, Sequence[str]]],
    folder: Path,
    maker: SFTMaker,
) -> list[Job]:
    """One job a photo. There are few of them, so that each is asked about twice as often as a scene.

    Args:
        photos: photos of 1 to 12 instances with the category of each, as `instance_photos.select` gives them.
        folder: where copies of the photos go, each with its instance map, and their mirror images.
        maker: what the examples are made with.
    """
    often = replace(maker.setting, variants=_PHOTO_VARIANTS * maker.setting.variants)
    make = partial(_of_photo, folder=folder, maker=replace(maker, setting=often))
    return [
        Job(f"photo {photo.name}", Task.SIS, partial(make, photo, categories)) for photo, categories in photos
    ]


def scene_jobs(source: Foregrounds, numbers: Iterable[int], folder: Path, maker: SFTMaker) -> list[Job]:
    """One job a scene: it is composed, written as a picture, and asked about.

    Args:
        source: the foregrounds of one split.
        numbers: numbers of the scenes, in the stream of the setting's seed.
        folder: where the pictures go.
        maker: what the examples are made with.
    """
    make = partial(_of_scene, source=source, folder=folder, maker=maker)
    return [Job(f"scene {number}", Task.SIS, partial(make, number)) for number in numbers]


def crowd_jobs(source: Foregrounds, numbers: Iterable[int], folder: Path, maker: SFTMaker) -> list[Job]:
    """One job a scene of seven to nine objects, of which the answer lists six.

    Arguments as of `scene_jobs`, of other numbers.
    """
    make = partial(_of_scene, source=source, folder=folder, maker=maker)
    return [
        Job(f"scene {number}", Task.SIS, partial(make, number, objects=MOST_INSTANCES + 1 + number % 3))
        for number in numbers
    ]


def parts_jobs(samples: Iterable[Sample], folder: Path, maker: SFTMaker) -> list[Job]:
    """One job a photo with a mask: its connected parts are taken for instances, all of the photo's name.

    Arguments as of `scene_jobs`; the samples are those of `of_several_parts`.
    """

    def make(sample: Sample) -> tuple[list[SFTExample], list[str]]:
        image, truth = read_truth(sample)
        masks = connected_parts(truth)
        if not 0 < len(masks) <= MOST_INSTANCES:
            return [], []
        called = [Called.of_synset(sample.synset, maker.names)] * len(masks)
        return _ask_both_ways("parts", sample.name, image, masks, called, folder, maker)

    return [Job(f"parts {sample.name}", Task.SIS, partial(make, sample)) for sample in samples]


def of_several_parts(samples: Sequence[Sample], masks: Iterable[np.ndarray], count: int) -> list[Sample]:
    """Those samples whose mask has several connected parts, filled up to `count` with others, evenly spread.

    Args:
        samples: samples with masks.
        masks: uint8 (S, S) of each, of any size.
        count: how many to choose; of those with several parts too.
    """
    several = [1 < len(connected_parts(np.asarray(mask) > 127)) <= MOST_INSTANCES for mask in masks]
    chosen = [sample for sample, each in zip(samples, several, strict=True) if each][:count]
    others = [sample for sample, each in zip(samples, several, strict=True) if not each]
    more = min(count - len(chosen), len(others))
    return chosen + [others[index * len(others) // more] for index in range(more)]


def whole_scene_jobs(source: Foregrounds, numbers: Iterable[int], folder: Path, maker: SFTMaker) -> list[Job]:
    """One job a scene, for SOD: everything in it stands out, and has a name only if that is the same of all.

    Arguments as of `scene_jobs`, of other numbers.
    """

    def make(number: int) -> tuple[list[SFTExample], list[str]]:
        scene = scene_number(source, maker.setting.seed, number)
        path = folder / f"{number:06d}.webp"
        image = write_picture(Image.fromarray(scene.image), path)
        everything = np.zeros(scene.image.shape[:2], bool)
        for each in scene.objects:
            everything |= each.mask
        synsets = {each.synset for each in scene.objects}
        sample = Sample(f"scene {number}", path, synset=synsets.pop() if len(synsets) == 1 else None)
        examples, outcomes = sod_answers(sample, image, everything, maker)
        if not examples:
            path.unlink()
        return examples, outcomes

    return [Job(f"scene {number}", Task.SOD, partial(make, number)) for number in numbers]


def write_picture(image: Image.Image, path: Path) -> Image.Image:
    """Write a picture as WebP, and give it as it will be read."""
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=92)
    write_bytes_atomic(path, buffer.getvalue())
    return load_image(buffer.getvalue())


def is_salient(mask: np.ndarray, shown: np.ndarray) -> bool:
    """Whether an annotated instance of a photo that was not labelled for saliency counts as salient.

    It does if the map of what stands out covers 30 % of it, or if it covers 5 % of the photo.

    Args:
        mask: mask of the instance, bool (H, W).
        shown: that map, bool (H, W).
    """
    return bool((mask & shown).sum() >= _COVERED * mask.sum() or mask.mean() >= _LARGE)


def instance_map(masks: Sequence[np.ndarray], size: tuple[int, int]) -> bytes:
    """A PNG, grey: 0 where no mask is, else its number from 1.

    Args:
        masks: bool (H, W).
        size: width and height, as of a PIL image.
    """
    numbers = np.zeros(size[::-1], np.uint8)
    for number, mask in enumerate(masks, start=1):
        numbers[mask] = number
    buffer = BytesIO()
    Image.fromarray(numbers).save(buffer, "PNG")
    return buffer.getvalue()


def _of_photo(
    photo: InstanceImage,
    categories: Sequence[str],
    *,
    folder: Path,
    maker: SFTMaker,
) -> tuple[list[SFTExample], list[str]]:
    image = load_image(photo.image)
    if image.size != (photo.width, photo.height):
        raise SaliencyError(f"{photo.image}: is {image.size}, its masks are of {(photo.width, photo.height)}")
    masks = [decode(each.mask) for each in photo.instances]
    shown = Found(maker.segmenter, image)(EVERYTHING)
    salient = [is_salient(mask, shown) for mask in masks]
    masks = [mask for mask, each in zip(masks, salient, strict=True) if each]
    if not masks:
        return [], ["nothing salient"]
    nouns = [category_nouns(name) for name, each in zip(categories, salient, strict=True) if each]
    called = [Called.of_words(maker.names.of_category(*each.names, *each.synonyms)) for each in nouns]
    return _ask_both_ways("photo", photo.name, image, masks, called, folder, maker)


def _of_scene(
    number: int, *, source: Foregrounds, folder: Path, maker: SFTMaker, objects: int | None = None
) -> tuple[list[SFTExample], list[str]]:
    scene = scene_number(source, maker.setting.seed, number, objects)
    masks = [each.mask for each in scene.objects]
    called = [Called.of_synset(each.synset, maker.names) for each in scene.objects]
    image, path, name = Image.fromarray(scene.image), folder / f"{number:06d}.webp", f"scene {number}"
    rng = Random(f"{maker.setting.seed} {name}")
    return _ask(name, image, path, masks, called, maker, rng)


def _ask_both_ways(
    kind: str,
    name: str,
    image: Image.Image,
    masks: Sequence[np.ndarray],
    called: Sequence[Called],
    folder: Path,
    maker: SFTMaker,
) -> tuple[list[SFTExample], list[str]]:
    """Ask about a photo, and about its mirror image if the setting says so."""
    examples: list[SFTExample] = []
    outcomes: list[str] = []
    for mirrored in (False, True) if maker.setting.mirror else (False,):
        if mirrored:
            image, masks = ImageOps.mirror(image), [mask[:, ::-1] for mask in masks]
        path = folder / f"{name}{' mirrored' if mirrored else ''}.webp"
        rng = Random(f"{maker.setting.seed} {kind} {name} {mirrored}")
        more, also = _ask(name, image, path, masks, called, maker, rng)
        examples, outcomes = examples + more, outcomes + also
    return examples, outcomes


def _ask(
    name: str,
    image: Image.Image,
    path: Path,
    masks: Sequence[np.ndarray],
    called: Sequence[Called],
    maker: SFTMaker,
    rng: Random,
) -> tuple[list[SFTExample], list[str]]:
    """The examples of a picture; it is written to `path`, its instance map beside it, if there are any."""
    image = write_picture(image, path)
    answers, outcomes = _answers(image, masks, called, maker, rng)
    if answers:
        write_bytes_atomic(path.with_suffix(".png"), instance_map(masks, image.size))
    else:
        path.unlink()
    make = partial(example_of, name, [maker.path(path)], False, Task.SIS)
    return [make(*answer) for answer in answers], outcomes


def _answers(
    image: Image.Image,
    masks: Sequence[np.ndarray],
    called: Sequence[Called],
    maker: SFTMaker,
    rng: Random,
) -> tuple[list[tuple[str, tuple[str, ...], tuple[str, ...]]], list[str]]:
    """Return reasoning, expressions and nouns of each rationale that works, and all outcomes."""
    setting = maker.setting
    order = reading_order(masks)
    masks = [masks[index] for index in order]
    facts = instance_facts(image, masks, [called[index] for index in order])
    everything = np.logical_or.reduce(masks) if masks else np.zeros(image.size[::-1], bool)
    around = measure(image, everything)
    found = Found(maker.segmenter, image, instances=True, salient=len(masks) == 1)
    listed = listed_instances(facts)
    masks = [masks[index] for index in listed]
    said = [facts[index] for index in listed]
    more = [facts[index] for index in range(len(facts)) if index not in listed]
    written = [
        [wordings[index] for index in listed]
        for wordings in (word_instances(facts, rng) for _ in range(setting.variants))
    ]
    found.add(options[0].expression for wordings in written for options in wordings if options)
    answers: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    outcomes: list[str] = []
    for wordings in written:
        chosen, outcome = consistent_instances(
            wordings, found, masks, setting.minimum_iou, setting.minimum_found
        )
        outcomes.append(outcome)
        fast = rng.random() < setting.fast_share
        if chosen is not None:
            rationale = write_instances(said, chosen, rng, around, more)
            nouns = tuple(wording.noun for wording in chosen)
            answers.append(("" if fast else rationale.reasoning, rationale.expressions, nouns))
    return answers, outcomes
