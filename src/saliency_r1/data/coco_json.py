"""Read SIS data in COCO JSON: a file of images and annotations, any categories, polygons or run lengths.

Salient instances need no categories, and no metric uses them. A row, as read: `InstanceImage(key=9,
name="000000000009", image=…/images/000000000009.jpg, height=360, width=480, instances=(…))`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saliency_r1.data.folders import IMAGE_FOLDERS, listed, subfolders
from saliency_r1.data.true_instances import InstanceImage, TrueInstance, run_lengths_of
from saliency_r1.errors import SaliencyError, one_line

_OTHER_FILES = ("synsets.json", "groups.json")
_KEYS = (b"info", b"licenses", b"images", b"annotations", b"categories", b"type", b"videos")
_LOOKED_AT = 4096


def find_json(root: str | Path) -> Path | None:
    """Find the JSON file of a data set: `root`, or the only one in it or in its `annotations` folder.

    Other files are ignored: `synsets.json`, `groups.json`, and JSON files that do not begin like COCO's.

    Raises:
        SaliencyError: if there are several.
    """
    root = Path(root)
    if root.suffix.lower() == ".json":
        return root
    for folder in (root, root / "annotations", root / "Annotations"):
        found = [path for path in sorted(folder.glob("*.json")) if _may_be_coco(path)]
        if len(found) > 1:
            raise SaliencyError(
                f"{folder}: several json files, give one of them as the data: "
                + listed(path.name for path in found)
            )
        if found:
            return found[0]
    return None


def _may_be_coco(path: Path) -> bool:
    """Whether a JSON file begins with one of COCO's keys, or cannot be read, which its reader reports."""
    if path.name in _OTHER_FILES or path.name.startswith("."):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return True
    key = re.match(rb'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:', head.removeprefix(codecs.BOM_UTF8))
    return key is None or key[1] in _KEYS


def read_coco(path: str | Path) -> Iterator[InstanceImage]:
    """Yield the images with their instances, sorted by name, decoded when their turn comes.

    Args:
        path: a COCO instance file. Photos are expected in a folder `images` (or another known name) beside it
            or one level above, otherwise beside it.

    Raises:
        SaliencyError: before the first image, if the file is not COCO JSON, or if ids are unknown or used
            twice; at an image, if a mask is broken or has another size.
    """
    path = Path(path)
    content = load_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise SaliencyError(f"{path}: not COCO, expected an object with the lists `images` and `annotations`")
    images, annotations = content["images"], content["annotations"]
    if not images:
        raise SaliencyError(f"{path}: its list `images` is empty")
    _check_fields(path, images, annotations)
    of_image: dict[Any, list[dict]] = {image["id"]: [] for image in images}
    for annotation in annotations:
        of_image[annotation["image_id"]].append(annotation)
    names = _names(images)
    folder = _image_folder(path)
    categories = _categories(content)
    order = sorted(range(len(images)), key=names.__getitem__)
    return (
        _image(path, images[index], names[index], folder, of_image[images[index]["id"]], categories)
        for index in order
    )


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SaliencyError: if it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SaliencyError(f"{path}: no such file") from None
    except OSError as error:
        raise SaliencyError(f"{path}: cannot be read ({one_line(error)})") from error
    except (ValueError, RecursionError) as error:
        raise SaliencyError(f"{path}: not json ({str(error).splitlines()[0]})") from None


def _check_fields(path: Path, images: list[Any], annotations: list[Any]) -> None:
    for image in images:
        if not isinstance(image, dict) or not {"id", "file_name", "height", "width"} <= image.keys():
            raise SaliencyError(
                f"{path}: an image without id, file_name, height and width: {str(image)[:80]}"
            )
    twice = [str(key) for key, count in Counter(image["id"] for image in images).items() if count > 1]
    if twice:
        raise SaliencyError(f"{path}: image ids used twice: {listed(twice)}")
    known = {image["id"] for image in images}
    for annotation in annotations:
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise SaliencyError(f"{path}: an annotation without image_id: {str(annotation)[:80]}")
    unknown = {
        str(annotation["image_id"]) for annotation in annotations if annotation["image_id"] not in known
    }
    if unknown:
        raise SaliencyError(f"{path}: annotations of {len(unknown)} unknown image ids: {listed(unknown)}")


def _names(images: list[dict]) -> list[str]:
    """Return stems, or paths without suffix if stems repeat."""
    stems = [Path(image["file_name"]).stem for image in images]
    if len(set(stems)) == len(stems):
        return stems
    return [Path(image["file_name"]).with_suffix("").as_posix() for image in images]


def _image_folder(path: Path) -> Path:
    for root in (path.parent, path.parent.parent):
        for child in subfolders(root):
            if child.name.lower() in IMAGE_FOLDERS:
                return child
    return path.parent


def _categories(content: dict) -> dict[Any, str]:
    """Return the names of categories by their ids; invalid entries are skipped."""
    listed_ones = content.get("categories")
    rows = listed_ones if isinstance(listed_ones, list) else []
    return {
        row["id"]: row["name"]
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("id"), int | str) and isinstance(row.get("name"), str)
    }


def _image(
    path: Path, image: dict, name: str, folder: Path, annotations: list[dict], categories: dict[Any, str]
) -> InstanceImage:
    height, width = int(image["height"]), int(image["width"])
    instances = []
    for annotation in annotations:
        where = (
            f"{path}: annotation {annotation.get('id', '?')} of image {image['id']} ({image['file_name']})"
        )
        mask = run_lengths_of(annotation.get("segmentation"), height, width, where)
        number, synset = annotation.get("category_id"), annotation.get("synset")
        category = categories.get(number) if isinstance(number, int | str) else None
        instances.append(
            TrueInstance(
                mask,
                bool(annotation.get("iscrowd", 0)),
                category,
                synset if isinstance(synset, str) else None,
            )
        )
    return InstanceImage(image["id"], name, folder / image["file_name"], height, width, tuple(instances))
