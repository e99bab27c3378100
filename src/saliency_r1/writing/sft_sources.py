"""The sources of a fine-tuning set of several tasks, split by split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1.data.duts import load_groups
from saliency_r1.data.layouts import load_splits
from saliency_r1.data.samples import Sample
from saliency_r1.device import fewer_torch_threads
from saliency_r1.files import write_bytes_atomic
from saliency_r1.language.tree_names import TreeNames
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import select
from saliency_r1.tasks import Task
from saliency_r1.writing.rationale_sis import MOST_SEEN
from saliency_r1.writing.sft_groups import composed_group_jobs, group_jobs
from saliency_r1.writing.sft_instances import (
    crowd_jobs,
    of_several_parts,
    parts_jobs,
    photo_jobs,
    scene_jobs,
    whole_scene_jobs,
)
from saliency_r1.writing.sft_set import Job, SFTMaker, SFTSetting, sod_jobs, write_set

if TYPE_CHECKING:
    from saliency_r1.segmenters.base import Segmenter

VALIDATION_SHARE = 10
"""The validation split has one scene and group for so many of the training split."""
WHOLE_SHARE = 3
"""For so many scenes with the question of SIS there is one with that of SOD."""
CROWD_SHARE = 8
"""For so many scenes there is one of more objects than an answer lists."""


@dataclass(frozen=True)
class Sources:
    """The sources of a set.

    Attributes:
        tasks: which to ask.
        root: the DUTS folder; paths begin there.
        photos: COCO json data sets, for SIS.
        scenes: composed scenes to train on.
        draws: examples of each group of real photos to train on; an eighth as many for validation.
        groups: composed groups to train on.
        parts: photos to train on for SIS whose mask's connected parts are taken for instances.
        cache: folder of packed photos, for composing.
        out: folder of the set; composed pictures go into folders in it.
        names: the words to use.
        limit: photos of each split for SOD; all if None.
    """

    tasks: tuple[Task, ...]
    root: Path
    photos: tuple[Path, ...]
    scenes: int
    draws: int
    groups: int
    cache: Path
    out: Path
    names: NameTree
    limit: int | None = None
    parts: int = 0


def split_jobs(sources: Sources, title: str, samples: Sequence[Sample], maker: SFTMaker) -> list[Job]:
    """The jobs of one split: photos, scenes and groups hold nothing of the other.

    Args:
        sources: what to make the set of.
        title: `train` or `validation`.
        samples: the photos of DUTS-TR in that split.
        maker: what the examples are made with.
    """
    training = title == "train"
    share = 1 if training else VALIDATION_SHARE
    scenes, groups, parts = (-(-count // share) for count in (sources.scenes, sources.groups, sources.parts))
    composed = (Task.SIS in sources.tasks and scenes) or (Task.COSOD in sources.tasks and groups)
    foregrounds = Foregrounds.open(samples, sources.cache / title) if composed else None
    jobs: list[Job] = []
    if Task.SOD in sources.tasks:
        step = max(1, len(samples) // (sources.limit or len(samples)))
        jobs += sod_jobs(samples[::step][: sources.limit], maker)
    if Task.SIS in sources.tasks:
        for root in sources.photos:
            folder = sources.out / "photos" / title
            jobs += photo_jobs(select(root, title, MOST_SEEN), folder, maker)
        if foregrounds is not None:
            folder = sources.out / "scenes" / title
            jobs += scene_jobs(foregrounds, range(scenes), folder, maker)
            first = scenes + scenes // WHOLE_SHARE
            jobs += crowd_jobs(foregrounds, range(first, first + scenes // CROWD_SHARE), folder, maker)
            if parts:
                chosen = of_several_parts(samples, foregrounds.photos.masks, parts)
                jobs += parts_jobs(chosen, sources.out / "photos" / title, maker)
            if Task.SOD in sources.tasks:
                jobs += whole_scene_jobs(foregrounds, range(scenes, first), folder, maker)
    if Task.COSOD in sources.tasks:
        draws = sources.draws if training else -(-sources.draws // 8)
        jobs += group_jobs(load_groups(sources.root, samples), draws, maker)
        if foregrounds is not None:
            jobs += composed_group_jobs(foregrounds, groups, sources.out / "groups" / title, maker)
    return jobs


def write_splits(
    sources: Sources,
    segmenter: Segmenter,
    setting: SFTSetting,
    *,
    track: Callable[[Iterable[Job], str], Iterable[Job]] = lambda jobs, title: jobs,
    workers: int = 1,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Write `train.jsonl`, `validation.jsonl` and `counts.json` into `sources.out`.

    The validation split has one response for each photo, with reasoning, and no mirror images. The same call
    after a kill continues where it stopped.

    Args:
        sources: what to make the set of.
        segmenter: the frozen one that expressions must work with.
        setting: how, for the training split.
        track: wraps the jobs of a split to show progress.
        workers: threads; the result is the same for any number.

    Returns:
        What became of the rationales, by split and task, as in `counts.json`.

    Raises:
        SaliencyError: as of `write_set`.
    """
    splits = dict(zip(("train", "validation"), load_splits(sources.root), strict=True))
    names = TreeNames(sources.names)
    counts = {}
    with fewer_torch_threads(workers):
        for title, samples in splits.items():
            made = setting if title == "train" else replace(setting, mirror=False, variants=1, fast_share=0.0)
            maker = SFTMaker(segmenter, sources.root, names, made)
            written = write_set(
                split_jobs(sources, title, samples, maker),
                sources.out / f"{title}.jsonl",
                maker.header,
                track=lambda jobs, title=title: track(jobs, title),  # type: ignore[misc]
                workers=workers,
            )
            counts[title] = {task.value: count.to_dict() for task, count in written.items()}
    write_bytes_atomic(sources.out / "counts.json", json.dumps(counts, indent=1).encode())
    return counts
