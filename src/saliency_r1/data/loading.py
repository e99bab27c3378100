"""A task's data from its folder, whichever layout it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from saliency_r1.data.coco_json import find_json, read_coco
from saliency_r1.data.duts import load_duts
from saliency_r1.data.duts import split as split_duts
from saliency_r1.data.groups import read_groups
from saliency_r1.data.instance_png import read_instance_pngs
from saliency_r1.data.instances import InstanceImage
from saliency_r1.data.pairs import read_pairs
from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

SPLITS = ("train", "validation")


def load_maps(root: str | Path, task: Task, split: str | None = None) -> list[Sample]:
    """The photos and masks of a SOD or CoSOD set; no picture is opened.

    Args:
        root: folder of the set.
        task: `sod` for pairs, `cosod` for groups.
        split: `train` or `validation` of DUTS-TR (`saliency_r1.data.duts.split`), where root is the DUTS
            folder.

    Raises:
        SaliencyError: as of the layout's reader, or if there is no such split.
    """
    if split is not None:
        if task is not Task.SOD or split not in SPLITS:
            raise SaliencyError(
                f"split {split!r} of {task}: there are {' and '.join(SPLITS)}, of DUTS-TR, for sod"
            )
        return split_duts(load_duts(root))[SPLITS.index(split)]
    return list(read_groups(root) if task is Task.COSOD else read_pairs(root))


def load_instances(root: str | Path) -> Iterator[InstanceImage]:
    """The photos and instances of a SIS set: COCO json, or else colour instance masks.

    Args:
        root: folder of the set, or the json file.

    Raises:
        SaliencyError: as of the layout's reader.
    """
    path = find_json(root)
    return read_coco(path) if path else read_instance_pngs(root)


def task_of(root: str | Path) -> Task:
    """The task whose layout a folder has: json is SIS, folders of folders are CoSOD, else SOD.

    Raises:
        SaliencyError: if json files cannot be told apart.
    """
    if find_json(root):
        return Task.SIS
    try:
        read_groups(root)
    except SaliencyError:
        return Task.SOD
    return Task.COSOD
