"""Read photos of few instances from COCO JSON sets that were not labelled for saliency.

Photos of one to six instances are kept if none is a crowd and the largest is over 5 % of the picture; where
it is asked for, so are photos of more. A fifth is held out for validation, by a hash of the file
name. An instance has the name of its category.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.coco_json import find_json, load_json, read_coco
from saliency_r1.data.true_instances import InstanceImage, decode
from saliency_r1.errors import SaliencyError
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import OBJECT, subject_of
from saliency_r1.scenes.composing import box_of, paste

MOST_INSTANCES = 6
LEAST_LARGEST = 0.05
"""Least share of the picture that the largest instance must cover."""

_SYNONYMS = {
    "airplane": "plane|aeroplane",
    "bicycle": "bike",
    "cell phone": "mobile phone",
    "couch": "sofa",
    "dining table": "table",
    "donut": "doughnut",
    "hair drier": "hair dryer",
    "handbag": "purse",
    "motorcycle": "motorbike",
    "potted plant": "plant",
    "refrigerator": "fridge",
    "remote": "remote control",
    "sports ball": "ball",
    "teddy bear": "teddy",
    "tv": "television|monitor",
}
_HYPERNYMS = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe monkey otter turtle tiger deer camel "
    "goat",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "fruit": "banana apple orange",
    "vegetable": "broccoli carrot",
    "bag": "backpack|handbag",
    "toy": "teddy bear|kite|balloon|frisbee",
    "appliance": "microwave|oven|toaster|refrigerator",
}
_ABOVE = {
    name: hypernym
    for hypernym, names in _HYPERNYMS.items()
    for name in (names.split("|") if "|" in names else names.split())
}


@dataclass(frozen=True)
class InstancePhoto:
    """A photo with named instances.

    Attributes:
        name: unique in its set.
        image: uint8 (S, S, 3), resized to a square.
        masks: bool (N, S, S).
        nouns: the names of the N instances.
        salient: uint8 (S, S), 0 to 255, the mask of what stands out; None if unknown.
    """

    name: str
    image: np.ndarray
    masks: np.ndarray
    nouns: tuple[Nouns, ...]
    salient: np.ndarray | None = None


def category_nouns(name: str) -> Nouns:
    """Return the names that an instance of a category may have."""
    name = name.lower()
    synonyms = tuple(_SYNONYMS[name].split("|")) if name in _SYNONYMS else ()
    hypernyms = (_ABOVE[name],) if name in _ABOVE else ()
    names = tuple(dict.fromkeys((name, subject_of(name))))
    return Nouns(names, synonyms, hypernyms, frozenset((*names, *synonyms, *hypernyms)))


def is_held_out(file_name: str) -> bool:
    """Whether a photo belongs to the validation fifth: its file name's SHA-1 is divisible by five."""
    return int(hashlib.sha1(Path(file_name).name.encode()).hexdigest(), 16) % 5 == 0


def fits(image: InstanceImage, most: int = MOST_INSTANCES) -> bool:
    """Whether a photo is kept: one to `most` instances, no crowd, the largest over 5 % of the picture."""
    if not 1 <= len(image.instances) <= most or any(each.crowd for each in image.instances):
        return False
    largest = max(int(decode(each.mask).sum()) for each in image.instances)
    return largest > LEAST_LARGEST * image.height * image.width


def select(
    root: str | Path, split: str, most: int = MOST_INSTANCES
) -> list[tuple[InstanceImage, tuple[str, ...]]]:
    """Select the photos of a split of a COCO JSON set, with the category of each instance, sorted by name.

    Args:
        root: folder of the set, or its JSON file.
        split: `train` or `validation`.
        most: most instances of a photo.

    Raises:
        SaliencyError: if there is no such split; see also `coco_json.read_coco`.
    """
    if split not in ("train", "validation"):
        raise SaliencyError(f"split {split!r}: expected train or validation")
    path = find_json(root)
    if path is None:
        raise SaliencyError(f"{root}: no COCO json found, expected one in it or in its folder annotations")
    return [
        (image, tuple(instance.category or OBJECT for instance in image.instances))
        for image in read_coco(path)
        if is_held_out(image.image.name) == (split == "validation") and fits(image, most)
    ]


SALIENT_AGREEMENT = 0.75
"""Least IoU of a teacher's mask with the instances that it covers, for these to count as salient."""
_COVERED = 0.5
_ALONE = 0.08


def salient_of(masks: np.ndarray, soft: np.ndarray | None) -> np.ndarray | None:
    """Find what stands out in a photo of annotated instances, from a teacher's mask and the true masks.

    The instances of which the teacher covers at least half are salient if the teacher shows little else;
    their true masks are used. If the teacher disagrees, or there is none, a single instance that covers 8 %
    of its photo is salient.

    Args:
        masks: bool (N, S, S), the instances.
        soft: uint8 (S, S), the teacher's mask, or None.

    Returns:
        uint8 (S, S), 0 or 255; None if undecided.
    """
    if soft is not None:
        shown = soft > 127
        covered = [mask for mask in masks if (mask & shown).sum() >= _COVERED * mask.sum()]
        if covered:
            union = np.any(covered, axis=0)
            if (union & shown).sum() >= SALIENT_AGREEMENT * (union | shown).sum():
                return union.astype(np.uint8) * np.uint8(255)
    if len(masks) == 1 and masks[0].mean() >= _ALONE:
        return masks[0].astype(np.uint8) * np.uint8(255)
    return None


def open_photos(
    roots: Iterable[str | Path], split: str, size: int, teacher: str | Path | None = None
) -> list[InstancePhoto]:
    """Read the selected photos of several sets, resized to squares; a few hundred fit in memory.

    Photos with an instance that is too small at that size are skipped.

    Args:
        roots: folders of COCO json sets.
        split: `train` or `validation`.
        size: pixels of a side.
        teacher: folder of a teacher's soft masks, with a folder for each root's name, as `saliency-r1 data
            masks` writes them; roots without a folder have no such masks.

    Raises:
        SaliencyError: see `select`.
    """
    photos = []
    for root in roots:
        for image, names in select(root, split):
            with Image.open(image.image) as picture:
                pixels = np.asarray(
                    picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
                )
            masks = [_squeezed(decode(each.mask), size) for each in image.instances]
            if all(mask.any() for mask in masks):
                nouns = tuple(category_nouns(name) for name in names)
                soft = _soft_mask(teacher, Path(root), image.image, size)
                stacked = np.stack(masks)
                photos.append(InstancePhoto(image.name, pixels, stacked, nouns, salient_of(stacked, soft)))
    return photos


def _soft_mask(teacher: str | Path | None, root: Path, image: Path, size: int) -> np.ndarray | None:
    if teacher is None:
        return None
    folder = Path(teacher) / root.name
    path = folder / f"{image.stem}.png"
    if not path.is_file():
        return None
    with Image.open(path) as mask:
        return np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BILINEAR))


def category_names(roots: Iterable[str | Path]) -> list[str]:
    """Return the category names of several sets, sorted."""
    names: set[str] = set()
    for root in roots:
        path = find_json(root)
        names |= {str(each["name"]) for each in load_json(path).get("categories", ())} if path else set()
    return sorted(names)


def _squeezed(mask: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX)) > 127


def cropped(photo: InstancePhoto, box: tuple[int, int, int, int]) -> InstancePhoto | None:
    """Crop a photo to (left, top, right, bottom), at the photo's size.

    None if that cuts more than a fifth off an instance.
    """
    left, top, right, bottom = box
    whole = photo.masks.sum((1, 2))
    if (photo.masks[:, top:bottom, left:right].sum((1, 2)) < 0.8 * whole).any():
        return None
    size = photo.image.shape[0]
    pixels = Image.fromarray(photo.image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    masks = [
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(
            (size, size), Image.Resampling.BILINEAR, box=box
        )
        for mask in photo.masks
    ]
    solid = np.stack([np.asarray(mask) > 127 for mask in masks])
    salient = photo.salient
    if salient is not None:
        if (salient[top:bottom, left:right] > 127).sum() < 0.8 * (salient > 127).sum():
            return None
        picture = Image.fromarray(salient).resize((size, size), Image.Resampling.BILINEAR, box=box)
        salient = np.asarray(picture)
    return InstancePhoto(photo.name, np.asarray(pixels), solid, photo.nouns, salient)


_VISIBLE = 0.6
_PASTED_AREAS = (0.02, 0.7)


class Instances:
    """The instances of many photos, to be pasted onto photos of instances (Ghiasi et al., CVPR 2021).

    Args:
        photos: the photos. Instances that cover less than 2 % or more than 70 % of theirs are not pasted.
    """

    def __init__(self, photos: Sequence[InstancePhoto]) -> None:
        low, high = _PASTED_AREAS
        self._photos = photos
        self._all = [
            (row, index)
            for row, photo in enumerate(photos)
            for index, area in enumerate(photo.masks.mean((1, 2)))
            if low <= area <= high
        ]
        self._of_name: dict[str, list[tuple[int, int]]] = {}
        for row, index in self._all:
            self._of_name.setdefault(photos[row].nouns[index].names[0], []).append((row, index))

    def paste_onto(self, photo: InstancePhoto, rng: np.random.Generator) -> InstancePhoto:
        """Paste one to three instances onto a photo, most of them with the name of one that is there.

        An instance is left out if it would hide more than 40 % of one that is there. A photo has six
        instances at most. What stands out in a new photo is unknown.
        """
        for _ in range(min(int(rng.integers(1, 4)), MOST_INSTANCES - len(photo.nouns))):
            like = int(rng.integers(len(photo.nouns)))
            same = self._of_name.get(photo.nouns[like].names[0])
            choices = same if same and rng.random() < 0.6 else self._all
            if not choices:
                break
            row, index = choices[int(rng.integers(len(choices)))]
            longest = rng.uniform(0.22, 0.55) * photo.image.shape[0]
            if choices is same:
                left, top, right, bottom = box_of(photo.masks[like])
                longest = min(max(right - left, bottom - top) * rng.uniform(0.6, 1.3), 1.2 * longest)
            photo = self._with(photo, self._photos[row], index, max(int(longest), 16), rng)
        return photo

    def _with(
        self, photo: InstancePhoto, source: InstancePhoto, index: int, longest: int, rng: np.random.Generator
    ) -> InstancePhoto:
        soft = source.masks[index].astype(np.uint8) * np.uint8(255)
        step = -1 if rng.random() < 0.5 else 1
        pixels, soft = source.image[:, ::step], soft[:, ::step]
        image, pasted = paste(photo.image, pixels, soft, longest, rng, np.any(photo.masks, axis=0))
        seen = photo.masks & ~pasted
        if not pasted.any() or (seen.sum((1, 2)) < _VISIBLE * photo.masks.sum((1, 2))).any():
            return photo
        masks, nouns = np.concatenate([seen, pasted[None]]), (*photo.nouns, source.nouns[index])
        return InstancePhoto(photo.name, image, masks, nouns)


def flipped(photo: InstancePhoto) -> InstancePhoto:
    """Mirror the photo left to right."""
    salient = None if photo.salient is None else np.ascontiguousarray(photo.salient[:, ::-1])
    return replace(
        photo,
        image=np.ascontiguousarray(photo.image[:, ::-1]),
        masks=np.ascontiguousarray(photo.masks[:, :, ::-1]),
        salient=salient,
    )


def vocabulary_of(names: Sequence[str]) -> list[str]:
    """Return all words that may name instances of these categories, sorted."""
    words: set[str] = set()
    for name in names:
        words.update(word for kind in category_nouns(name).kinds for word in kind.split())
    return sorted(words)
