"""A task's data from its folder, whichever layout it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from saliency_r1.data.coco_json import find_json, read_coco
from saliency_r1.data.duts import load_duts, load_synsets
from saliency_r1.data.duts import split as hold_out
from saliency_r1.data.groups import group_of, read_groups
from saliency_r1.data.instance_png import read_instance_pngs
from saliency_r1.data.pairs import read_pairs
from saliency_r1.data.samples import Sample
from saliency_r1.data.true_instances import InstanceImage
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

SPLITS = ("train", "validation")
HELD_OUT_SHARE = 10
"""One of so many pairs of a set without a split of its own is held out."""


def load_maps(root: str | Path, task: Task, split: str | None = None) -> list[Sample]:
    """The photos and masks of a SOD or CoSOD set; no picture is opened.

    A `synsets.json` in the folder says what is in a photo: of SOD as for `load_splits`, of CoSOD by the
    group's name.

    Args:
        root: folder of the set.
        task: `sod` for pairs, `cosod` for groups.
        split: `train` or `validation` of SOD, see `load_splits`; all photos for None.

    Raises:
        SaliencyError: see the layout's reader; also if there is no such split.
    """
    if split is not None:
        if task is not Task.SOD or split not in SPLITS:
            raise SaliencyError(f"split {split!r} of {task}: there are {' and '.join(SPLITS)}, for sod")
        return load_splits(root)[SPLITS.index(split)]
    if task is Task.COSOD:
        synsets = load_synsets(root)
        return [replace(each, synset=synsets.get(group_of(each.name))) for each in read_groups(root)]
    return _named_pairs(Path(root))


def load_splits(root: str | Path) -> tuple[list[Sample], list[Sample]]:
    """The photos and masks of SOD to train on, and those that are held out; no picture is opened.

    Of DUTS-TR the split is `saliency_r1.data.duts.split`. Of any other folder of pairs a tenth is held out,
    those of the smallest SHA-1 of their names. Either may have a `synsets.json` that says what is in a photo,
    by the part of its name before the first `_`.

    Args:
        root: the DUTS folder, or a folder as of `read_pairs`.

    Raises:
        SaliencyError: see `read_pairs`; also if there are fewer than two pairs.
    """
    root = Path(root)
    if (root / "DUTS-TR").is_dir():
        return hold_out(load_duts(root))
    samples = _named_pairs(root)
    if len(samples) < 2:
        raise SaliencyError(f"{root}: one photo with a mask: expected at least two, one is held out")
    return hold_out(samples, -(-len(samples) // HELD_OUT_SHARE))


def _named_pairs(root: Path) -> list[Sample]:
    synsets = load_synsets(root)
    return [replace(pair, synset=synsets.get(pair.name.split("_")[0])) for pair in read_pairs(root)]


def load_instances(root: str | Path) -> Iterator[InstanceImage]:
    """The photos and instances of a SIS set: COCO json, or else colour instance masks.

    Args:
        root: folder of the set, or the json file.

    Raises:
        SaliencyError: see the layout's reader.
    """
    path = find_json(root)
    return read_coco(path) if path else read_instance_pngs(root)


def task_of(root: str | Path) -> Task:
    """The task whose layout a folder has: json is SIS, folders of folders are CoSOD, else SOD.

    Raises:
        SaliencyError: if several JSON files could be meant.
    """
    if find_json(root):
        return Task.SIS
    try:
        read_groups(root)
    except SaliencyError:
        return Task.SOD
    return Task.COSOD
