"""Write sets of scenes: pictures, instance masks in COCO JSON and referring expressions; or groups.

A line of `expressions.jsonl`: `{"image": "000007.png", "text": "the second dog from the left", "kind":
"order", "instances": [2], "instance": 2}`. The numbers, from 0, are indices of the picture's annotations in
`instances.json`, which are in reading order; `instance` is null for absent or several objects.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from saliency_r1.data.duts import write_synsets
from saliency_r1.data.layouts import load_splits
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.language.expressions import UNKNOWN_NOUN
from saliency_r1.language.naming import OBJECT, NameBook
from saliency_r1.scenes.composing import box_of
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.scene_expressions import referring
from saliency_r1.scenes.scenes import Scene, compose_group, scene_number
from saliency_r1.workers import map_unordered

SHEET_SCENES = 24
_INKS = ("#e4572e", "#2e86de", "#27ae60", "#f1c40f", "#9b59b6", "#16a2b8")


@dataclass(frozen=True)
class SceneSet:
    """The settings of a set of scenes.

    Attributes:
        data: the DUTS folder.
        split: `train` or `validation` of DUTS-TR; of the other split only the names of training are used.
        seed: random seed.
        cache: folder of packed photos.
        size: pixels of a side.
    """

    data: str
    split: str
    seed: int = 0
    cache: str = "cache/duts-tr-256"
    size: int = 256


def write_scenes(which: SceneSet, count: int, out: Path, workers: int) -> Iterator[int]:
    """Write `images/`, `instances.json`, `synsets.json`, `expressions.jsonl` and `sheet.jpg`.

    They are equal for any number of workers. An annotation has the number of its synset.

    Args:
        which: the scenes.
        count: number of scenes.
        out: the folder, created if necessary.
        workers: number of processes; 0 uses this one.

    Yields:
        The number of each scene that is written, for a progress bar; the JSON files follow the last one.

    Raises:
        SaliencyError: if there is no such split; see also `load_splits`.
    """
    _check_split(which)
    # Pack once here, not in each worker.
    PackedPhotos.open(_samples(which), _cache(which), which.size).colours()
    rows: dict[int, _Row] = {}
    work = map_unordered(partial(_make, which), range(count), workers, preload=(__name__,))
    for number, (picture, row) in work:
        write_bytes_atomic(out / "images" / row["image"], picture)
        rows[number] = row
        yield number
    content = _coco([rows[number] for number in range(count)], which.size)
    write_bytes_atomic(out / "instances.json", json.dumps(content).encode())
    source, _ = _open(which)
    named = {sample.synset.id: sample.synset for sample in _samples(which) if sample.synset}
    used = {each["synset"] for row in rows.values() for each in row["instances"] if "synset" in each}
    write_synsets(out, {number: named[number] for number in sorted(used)})
    lines = [json.dumps(line) for number in range(count) for line in rows[number]["expressions"]]
    write_bytes_atomic(out / "expressions.jsonl", "".join(f"{line}\n" for line in lines).encode())
    sheet = sheet_of(scene_number(source, which.seed, number) for number in range(min(count, SHEET_SCENES)))
    file = io.BytesIO()
    sheet.save(file, format="JPEG", quality=92)
    write_bytes_atomic(out / "sheet.jpg", file.getvalue())


def write_groups(which: SceneSet, count: int, size: int, out: Path, workers: int) -> Iterator[int]:
    """Write composed groups as `images/<group>/<n>.png` and `masks/<group>/<n>.png`, as `data.groups` reads.

    In each picture a distractor is more salient than the shared object; the mask shows the shared object. A
    group's name is its number and the name of the shared object, whose synset is in `synsets.json` by that
    name.

    Args:
        which: the scenes.
        count: number of groups.
        size: pictures of a group, at least 2.
        out: the folder, created if necessary.
        workers: number of processes; 0 uses this one.

    Yields:
        The number of each group that is written, for a progress bar.

    Raises:
        SaliencyError: if there is no such split; see also `load_splits`.
    """
    _check_split(which)
    PackedPhotos.open(_samples(which), _cache(which), which.size).colours()
    work = map_unordered(partial(_make_group, which, size), range(count), workers, preload=(__name__,))
    shared: dict[str, Synset] = {}
    for number, (name, synset, pictures) in work:
        shared[name] = synset
        for index, (image, mask) in enumerate(pictures):
            write_bytes_atomic(out / "images" / name / f"{index}.png", image)
            write_bytes_atomic(out / "masks" / name / f"{index}.png", mask)
        yield number
    write_synsets(out, dict(sorted(shared.items())))


_Row = dict[str, Any]


def _check_split(which: SceneSet) -> None:
    if which.split not in ("train", "validation"):
        raise SaliencyError(f"split {which.split!r}: expected train or validation")


def _cache(which: SceneSet) -> Path:
    return Path(which.cache) / which.split


def _samples(which: SceneSet) -> list[Sample]:
    return load_splits(which.data)[which.split == "validation"]


@cache
def _open(which: SceneSet) -> tuple[Foregrounds, NameBook]:
    foregrounds = Foregrounds.open(_samples(which), _cache(which), which.size)
    return foregrounds, NameBook.from_samples(load_splits(which.data)[0])


def _make(which: SceneSet, number: int) -> tuple[bytes, _Row]:
    """Return a scene's PNG and its facts."""
    source, names = _open(which)
    scene = scene_number(source, which.seed, number)
    found = referring(scene, np.random.default_rng((which.seed, number, 1)), names)
    name = f"{number:06d}.png"
    instances = []
    for each in scene.objects:
        run_lengths = encode(each.mask)
        left, top, right, bottom = box_of(each.mask)
        instances.append(
            {
                "name": names.name(each.synset) if each.synset else OBJECT,
                **({"synset": each.synset.id} if each.synset else {}),
                "segmentation": {"size": run_lengths["size"], "counts": run_lengths["counts"].decode()},
                "bbox": [left, top, right - left, bottom - top],
                "area": int(each.mask.sum()),
                "colour": each.colour,
                "source": each.source,
            }
        )
    expressions = [
        {
            "image": name,
            "text": each.text,
            "kind": each.kind,
            "instances": list(each.indices),
            "instance": each.indices[0] if len(each.indices) == 1 else None,
        }
        for each in found
        if UNKNOWN_NOUN not in each.text.split()  # that teaches a segmenter to cope with unknown words
    ]
    return _png(scene.image), {"image": name, "instances": instances, "expressions": expressions}


def _make_group(which: SceneSet, size: int, number: int) -> tuple[str, Synset, list[tuple[bytes, bytes]]]:
    """Return a group's name, its shared object, and the PNGs of each picture and its mask."""
    source, names = _open(which)
    # The third number separates the stream from those of scenes and of fine-tuning groups.
    scenes, shared = compose_group(source, np.random.default_rng((which.seed, number, 2)), size)
    pictures = []
    for scene in scenes:
        mask = np.logical_or.reduce([each.mask for each in scene.objects if each.synset == shared])
        pictures.append((_png(scene.image), _png(255 * mask.astype(np.uint8))))
    return f"{number:05d} {names.name(shared)}", shared, pictures


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _coco(rows: list[_Row], size: int) -> dict[str, list[_Row]]:
    names = sorted({each["name"] for row in rows for each in row["instances"]})
    annotations: list[_Row] = []
    for number, row in enumerate(rows):
        for each in row["instances"]:
            category = names.index(each["name"]) + 1
            known = {key: value for key, value in each.items() if key != "name"}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    **known,
                }
            )
    return {
        "images": [
            {"id": number, "file_name": row["image"], "width": size, "height": size}
            for number, row in enumerate(rows)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


def sheet_of(scenes: Iterable[Scene], columns: int = 6) -> Image.Image:
    """Draw scenes side by side, each with its instances in colour and numbered below it."""
    pairs = [(Image.fromarray(scene.image), _overlay(scene)) for scene in scenes]
    if not pairs:
        raise ValueError("a sheet of no scenes: give at least one")
    width, height = pairs[0][0].size
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), rows * (2 * height + 12)), "white")
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        for below, picture in enumerate(pair):
            sheet.paste(picture, (column * (width + 6), row * (2 * height + 12) + below * (height + 2)))
    return sheet


def _overlay(scene: Scene) -> Image.Image:
    picture = Image.fromarray((scene.image * 0.6 + 40).astype(np.uint8))
    for number, each in enumerate(scene.objects):
        shade = Image.fromarray(each.mask.astype(np.uint8) * np.uint8(130))
        picture.paste(Image.new("RGB", picture.size, _INKS[number]), (0, 0), shade)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10, picture.width // 14))
    for number, each in enumerate(scene.objects, start=1):
        left, top, right, bottom = box_of(each.mask)
        place = ((left + right) / 2, (top + bottom) / 2)
        draw.text(place, str(number), "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return picture
