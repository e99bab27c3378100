"""DUTS-TR, the standard SOD training set, with the WordNet names of its ImageNet photos.

A row, as read: `Sample(name="n02084071_123", image=…/DUTS-TR-Image/n02084071_123.webp,
mask=…/DUTS-TR-Mask/n02084071_123.png, synset=Synset("n02084071", "dog", …))`.
Source: Wang et al., "Learning to Detect Salient Objects with Image-level Supervision" (CVPR 2017).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from saliency_r1.data.coco_json import load_json
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic

VALIDATION_COUNT = 500
SYNSETS = "synsets.json"


def load_duts(root: str | Path) -> list[Sample]:
    """All image and mask pairs of DUTS-TR, sorted by name.

    Args:
        root: the folder that holds `DUTS-TR/DUTS-TR-Image`, `DUTS-TR/DUTS-TR-Mask` and, for names,
            `synsets.json`.

    Raises:
        SaliencyError: if the folders are not there or a photo has no mask.
    """
    root = Path(root)
    images, masks = root / "DUTS-TR" / "DUTS-TR-Image", root / "DUTS-TR" / "DUTS-TR-Mask"
    if not images.is_dir() or not masks.is_dir():
        raise SaliencyError(f"{root} is not DUTS: expected the folders {images} and {masks}")
    synsets = load_synsets(root)
    mask_of = {path.stem: path for path in masks.iterdir()}
    samples = []
    for path in sorted(images.iterdir()):
        if path.stem not in mask_of:
            raise SaliencyError(f"{path} has no mask in {masks}")
        samples.append(Sample(path.stem, path, mask_of[path.stem], synsets.get(path.stem.split("_")[0])))
    if not samples:
        raise SaliencyError(f"{images} is empty: expected the photos of DUTS-TR")
    return samples


def load_synsets(root: str | Path) -> dict[str, Synset]:
    """The synsets of `synsets.json` by their WordNet number, or other name; empty if the file is not there.

    Raises:
        SaliencyError: if the file is not of that form.
    """
    path = Path(root) / SYNSETS
    if not path.is_file():
        return {}
    try:
        return {
            number: Synset(number, row["name"], tuple(row["synonyms"]), tuple(row["hypernyms"]))
            for number, row in load_json(path).items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SaliencyError(
            f"{path}: expected for each name `name`, `synonyms` and `hypernyms` ({error!r})"
        ) from None


def write_synsets(root: str | Path, synsets: Mapping[str, Synset]) -> None:
    """Write `synsets.json`, as `load_synsets` reads it.

    Args:
        root: the folder, made if need be.
        synsets: synsets by the name under which they are looked up.
    """
    rows = {
        name: {"name": each.name, "synonyms": each.synonyms, "hypernyms": each.hypernyms}
        for name, each in synsets.items()
    }
    write_bytes_atomic(Path(root) / SYNSETS, json.dumps(rows, indent=1).encode())


def load_groups(root: str | Path, samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The co-saliency groups of `groups.json`, by synset number, as far as their photos are in `samples`.

    Args:
        root: the folder that holds `groups.json`.
        samples: samples of one split.

    Raises:
        SaliencyError: if there is no such file.
    """
    path = Path(root) / "groups.json"
    if not path.is_file():
        raise SaliencyError(f"{path}: no such file, CoSOD needs the photos of each synset listed in it")
    of_name = {sample.name: sample for sample in samples}
    groups = {
        number: [of_name[name] for name in members if name in of_name]
        for number, members in load_json(path).items()
    }
    return {number: members for number, members in groups.items() if members}


def split(samples: Sequence[Sample], validation: int = VALIDATION_COUNT) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples: the `validation` names with the smallest SHA-1 are held out."""
    ranked = sorted(samples, key=lambda sample: hashlib.sha1(sample.name.encode()).hexdigest())
    held_out = {sample.name for sample in ranked[:validation]}
    train = [sample for sample in samples if sample.name not in held_out]
    return train, [sample for sample in samples if sample.name in held_out]
