"""The questions of reinforcement learning, made from ground truth.

Their file is described in `saliency_r1.data.prompt_examples`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from saliency_r1.data.duts import load_groups, load_synsets
from saliency_r1.data.groups import by_group
from saliency_r1.data.layouts import load_instances, load_maps
from saliency_r1.data.mask_files import load_grey, picture_size
from saliency_r1.data.prompt_examples import KnownNames, PromptExample
from saliency_r1.data.samples import Sample, Synset, spread
from saliency_r1.data.true_instances import InstanceImage, RunLengths, TrueInstance, encode
from saliency_r1.errors import SaliencyError
from saliency_r1.language.accepted_names import known_names, known_nouns
from saliency_r1.masks import as_truth
from saliency_r1.scenes.instance_photos import category_nouns, select
from saliency_r1.tasks import Task


def sod_prompts(samples: Iterable[Sample], root: Path) -> Iterator[PromptExample]:
    """A question for each photo.

    Args:
        samples: samples with masks.
        root: photo paths begin there, where they can.

    Raises:
        SaliencyError: at a sample, if it has no mask, or one of another size than the photo.
    """
    for sample in samples:
        names = _names_of(sample)
        yield _asked(Task.SOD, sample.name, [sample.image], [[_mask(sample)]], root, names)


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
            names = _names_of(chosen[0])
            yield _asked(Task.COSOD, f"{name}/{start // size}", images, masks, root, names)


def sis_prompts(
    images: Iterable[InstanceImage], root: Path, synsets: Mapping[str, Synset] | None = None
) -> Iterator[PromptExample]:
    """A question for each photo with instances; crowds are left out.

    Args:
        images: images with instances.
        root: as of `sod_prompts`.
        synsets: by their number, for the names of instances that have one; the others go by their category.
    """
    for image in images:
        alone = [instance for instance in image.instances if not instance.crowd]
        masks = [instance.mask for instance in alone]
        names = [_names_of_instance(instance, synsets or {}) for instance in alone]
        known = [each for each in names if each is not None]
        complete = known if len(known) == len(names) else []
        yield _asked(Task.SIS, image.name, [image.image], [masks], root, complete)


def without_reasoning(example: PromptExample) -> PromptExample:
    """Return the question with a request for the answer alone."""
    return replace(example, prompt=example.task.spec.prompt(reasoning=False))


def spread_groups(groups: dict[str, list[Sample]], size: int, count: int | None) -> dict[str, list[Sample]]:
    """As much of the groups as `count` questions of `size` photos need, evenly spread over all.

    All of them for None or where there are fewer.
    """
    questions = [name for name, samples in groups.items() for _ in range(len(samples) // size)]
    wanted = Counter(spread(questions, count))
    return {name: spread(groups[name], number * size) for name, number in wanted.items()}


def _asked(
    task: Task,
    name: str,
    images: Sequence[Path],
    masks: Sequence[Sequence[RunLengths]],
    root: Path,
    names: Sequence[KnownNames],
) -> PromptExample:
    paths = [
        (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()
        for path in images
    ]
    return PromptExample(
        name, task, task.spec.prompt(), tuple(paths), tuple(map(tuple, masks)), names=tuple(names)
    )


def _names_of(sample: Sample) -> list[KnownNames]:
    """Return the names of the object of a photo; nothing if they are not known."""
    names = known_names(sample.synset) if sample.synset else None
    return [names] if names and names.right else []


def _names_of_instance(instance: TrueInstance, synsets: Mapping[str, Synset]) -> KnownNames | None:
    synset = synsets.get(instance.synset or "")
    if synset:
        names = known_names(synset)
    elif instance.category:
        names = known_nouns(category_nouns(instance.category))
    else:
        return None
    return names if names.right else None


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


@dataclass(frozen=True)
class PromptSources:
    """The sources of questions; give at least one of the folders.

    Attributes:
        duts: the DUTS folder: SOD of its photos, CoSOD of those of one synset.
        photos: COCO json data sets of photos, for SIS.
        sod: a folder of photos and masks.
        sis: COCO json, or photos and colour instance masks; a `synsets.json` beside it, as `saliency-r1 data
            scenes` writes it, gives names to instances that have the number of a synset.
        cosod: a folder of groups of photos and masks.
        split: `train` or `validation`; None for train of `duts` and `photos`, and all of `sod`.
        each: questions of each task; None for all.
        group: photos of a CoSOD question.
        fast: share of the questions that ask for the answer alone, in [0, 1].
        seed: random seed of the groups and the order.
    """

    duts: Path | None = None
    photos: tuple[Path, ...] = ()
    sod: Path | None = None
    sis: Path | None = None
    cosod: Path | None = None
    split: str | None = None
    each: int | None = None
    group: int = 3
    fast: float = 0.0
    seed: int = 0


def make_prompts(
    sources: PromptSources,
    *,
    track: Callable[[Iterable[PromptExample], int], Iterable[PromptExample]] = lambda made, count: made,
) -> list[PromptExample]:
    """Return questions of all tasks that the sources allow, mixed.

    Photo paths begin in the DUTS folder if that is given, else in the current one; others are absolute.

    Args:
        sources: what to make them from.
        track: wraps those of SOD, and is told their number, to show progress.

    Raises:
        SaliencyError: if a source cannot be read, or there is no question.
    """
    rng, root = Random(sources.seed), sources.duts or Path()
    maps: list[Sample] = []
    pictures: list[InstanceImage] = []
    groups: dict[str, list[Sample]] = {}
    synsets: Mapping[str, Synset] = {}
    if sources.duts:
        maps += load_maps(sources.duts, Task.SOD, sources.split or "train")
        groups |= load_groups(sources.duts, maps)
    for folder in sources.photos:
        pictures += [image for image, _ in select(folder, sources.split or "train")]
    if sources.sod:
        maps += load_maps(sources.sod, Task.SOD, sources.split)
    if sources.sis:
        pictures += load_instances(sources.sis)
        synsets = load_synsets(sources.sis if sources.sis.is_dir() else sources.sis.parent)
    if sources.cosod:
        groups |= by_group(load_maps(sources.cosod, Task.COSOD))
    chosen = spread(maps, sources.each)
    found = list(track(sod_prompts(chosen, root), len(chosen)))
    found += sis_prompts(spread(pictures, sources.each), root, synsets)
    found += cosod_prompts(spread_groups(groups, sources.group, sources.each), root, sources.group, rng)
    if not found:
        raise SaliencyError("no question: give data by --duts, --photos, --sod, --sis or --cosod")
    rng.shuffle(found)
    return [without_reasoning(one) if rng.random() < sources.fast else one for one in found]
