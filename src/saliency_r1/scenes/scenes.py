"""Compose scenes: named foregrounds pasted onto other real photos, with exact instance masks.

A scene is a square picture in true shapes: a square crop of a photo whose own object is cut off or filled,
and up to nine foregrounds of other photos. Each foreground is one whole object. Their sizes follow their
names, with reduced differences. They are adapted to the light of the place, and nearer ones hide farther
ones. A foreground that its own photo cut at a side is placed at that side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from saliency_r1.cue_limits import Level
from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.colours import name_shares, to_lab
from saliency_r1.reading_order import reading_order as order_of_places
from saliency_r1.scenes.cutouts import (
    blend,
    cut_out,
    fill_grained,
    place,
    solid_at,
    square_box,
    turned,
)
from saliency_r1.scenes.foregrounds import Foregrounds

MOST_OBJECTS = 9
LEAST_AREA = 0.015
"""Least visible share of the picture of an object in a scene."""

_COUNTS = (0.08, 0.17, 0.27, 0.20, 0.13, 0.09, 0.06)
_VISIBLE = 0.55
# Share of the picture that an object should cover, by the number of objects.
_AREAS = {
    1: (0.06, 0.30),
    2: (0.045, 0.20),
    3: (0.035, 0.14),
    4: (0.032, 0.10),
    5: (0.030, 0.08),
    6: (0.028, 0.07),
    7: (0.026, 0.06),
    8: (0.024, 0.055),
    9: (0.022, 0.05),
}


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Attributes:
        mask: bool (H, W), its visible part.
        synset: the object's synset, if known.
        colour: one of `statements.COLOURS`, if it has a clear one in the scene.
        source: name of the photo that it was cut from.
    """

    mask: np.ndarray
    synset: Synset | None
    colour: str | None
    source: str


@dataclass(frozen=True)
class Scene:
    """A composed picture.

    Attributes:
        image: uint8 (H, W, 3).
        objects: the objects in reading order, see `reading_order`; empty if nothing was pasted.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]


def scene_number(source: Foregrounds, seed: int, number: int, objects: int | None = None) -> Scene:
    """Return scene `number` of an endless stream, the same in any order; see `compose_scene`."""
    return compose_scene(source, np.random.default_rng((seed, number)), objects=objects)


def compose_scene(
    source: Foregrounds,
    rng: np.random.Generator,
    *,
    objects: int | None = None,
    same_name: bool | None = None,
) -> Scene:
    """Compose a scene of foregrounds and a background from three or more photos.

    Args:
        source: the photos.
        rng: makes every choice.
        objects: number of objects, 0 to 9; random, up to 6, if not given. One or two fewer if a scene has no
            room.
        same_name: whether all of them have the same name, or each another one; random, partly mixed, if not
            given.

    Raises:
        SaliencyError: if more than nine objects are asked for.
    """
    if objects is not None and not 0 <= objects <= MOST_OBJECTS:
        raise SaliencyError(f"a scene of {objects} objects: expected 0 to {MOST_OBJECTS}")
    count = int(rng.choice(len(_COUNTS), p=_COUNTS)) if objects is None else objects
    best: Scene | None = None
    for _ in range(5):
        rows = choose_rows(source, rng, count, same_name)
        low, high = _AREAS[max(1, count)]
        relative = _relative_sizes(source.metres[rows])
        areas = [float(np.exp(rng.uniform(math.log(low), math.log(high))) * size**2) for size in relative]
        scene = _composed(source, rng, rows, areas, [rng.uniform(0.3, 0.9)] * count)
        if best is None or len(scene.objects) > len(best.objects):
            best = scene
        if len(best.objects) == count:
            break
    assert best is not None
    return best


def choose_rows(
    source: Foregrounds, rng: np.random.Generator, count: int, same_name: bool | None = None
) -> list[int]:
    """Choose rows of foregrounds for one scene, of objects that occur at one distance."""
    if count == 0:
        return []
    if same_name is None and count > 1:
        same_name = (True, False, None)[int(rng.choice(3, p=(0.3, 0.4, 0.3)))]
    enough = [rows for rows in source.of_name.values() if len(rows) >= count] if same_name else []
    first = int(rng.choice(np.concatenate(enough) if enough else source.named))
    if not same_name and rng.random() < 0.06:
        first = int(rng.choice(source.rows))
    rows = [first]
    for attempt in range(60 * count):
        if len(rows) == count:
            break
        again = same_name or (same_name is None and rng.random() < 0.5)
        model = int(rng.choice(rows))
        pool = source.of_name.get(source.names[model]) if again else None
        row = int(rng.choice(source.named if pool is None else pool))
        used = {source.names[each] for each in rows}
        ratio = max(source.metres[row], source.metres[first]) / min(source.metres[row], source.metres[first])
        late = attempt > 30 * count  # a small split may not have as many
        if (row in rows and not late) or (ratio > 5 and not late):
            continue
        if same_name is False and source.names[row] in used and attempt < 50 * count:
            continue
        rows.append(row)
    return rows


def _relative_sizes(metres: np.ndarray) -> np.ndarray:
    """Return relative lengths: true ones to the power of 0.35, because small objects are usually nearer."""
    if len(metres) == 0:
        return np.ones(0)
    logs = 0.35 * np.log(metres)
    return np.exp(np.clip(logs - logs.mean(), math.log(0.65), math.log(1.5)))


def compose_group(
    source: Foregrounds, rng: np.random.Generator, size: int, *, distractors: bool = True
) -> tuple[list[Scene], Synset]:
    """Compose scenes that share one object.

    Args:
        source: the photos.
        rng: makes every choice.
        size: number of scenes.
        distractors: whether each scene also gets an object of another name, which is larger, nearer to the
            middle and of stronger contrast than the shared one. The names of distractors differ between
            scenes if possible, and none is in all scenes.

    Returns:
        The scenes, and the synset of the shared object.

    Raises:
        SaliencyError: if no synset has two foregrounds, or there are no other names for distractors.
    """
    shared = [synset for synset, rows in source.of_synset.items() if len(rows) >= 2]
    if not shared or (distractors and len(source.of_name) < 3):
        raise SaliencyError("a group needs a synset with two foregrounds or more, and others beside it")
    wanted = [synset for synset in shared if len(source.of_synset[synset]) >= min(size, 5)] or shared
    synset = wanted[int(rng.integers(len(wanted)))]
    rows = _without_repeats(source.of_synset[synset], size, rng)
    own = source.names[int(rows[0])]
    names = [name for name in source.of_name if name != own and name not in synset.hypernyms]
    if not distractors:
        return [_shown_alone(source, rng, int(row), synset) for row in rows], synset
    rivals = _without_repeats(np.arange(len(names)), size, rng)
    pools = [source.of_name[names[rival]] for rival in rivals]
    return [
        _outdone(source, rng, int(row), synset, pool) for row, pool in zip(rows, pools, strict=True)
    ], synset


def _without_repeats(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the items, each as rarely as possible."""
    rounds = [rng.permutation(items) for _ in range(-(-count // len(items)))]
    return np.concatenate(rounds)[:count]


def _shown_alone(source: Foregrounds, rng: np.random.Generator, row: int, synset: Synset) -> Scene:
    for _ in range(40):
        scene = _composed(source, rng, [row], [float(rng.uniform(0.05, 0.2))], [0.6])
        if scene.objects:
            return scene
        row = int(rng.choice(source.of_synset[synset]))  # the first one was too thin
    raise SaliencyError(f"no foreground of {synset.name!r} can be shown")


def _outdone(
    source: Foregrounds, rng: np.random.Generator, row: int, synset: Synset, rivals: np.ndarray
) -> Scene:
    """Compose a scene of a foreground and a more salient rival, if some tries find one."""
    scene, most = None, -1
    for attempt in range(40):
        if attempt % 4 == 3:  # too thin, or without contrast everywhere
            row = int(rng.choice(source.of_synset[synset]))
        areas = [float(rng.uniform(0.13, 0.28)), float(rng.uniform(0.035, 0.07))]
        made = _composed(source, rng, [int(rng.choice(rivals)), row], areas, [0.0, 1.0], central=True)
        if len(made.objects) < 2:
            continue
        own = next(each.mask for each in made.objects if each.synset == synset)
        other = next(each.mask for each in made.objects if each.mask is not own)
        far = [float(np.hypot(*np.subtract(_centre(mask), 0.5))) for mask in (own, other)]
        around = made.image[~(own | other)].mean(0)
        contrast = [float(np.linalg.norm(made.image[mask].mean(0) - around)) for mask in (own, other)]
        # Contrast last: some objects have less than others everywhere.
        met = 2 * (other.sum() > 1.8 * own.sum()) + 2 * (far[1] < far[0]) + (contrast[1] > contrast[0])
        if met > most:
            scene, most = made, met
        if met == 5:
            break
    if scene is None:
        raise SaliencyError(f"no foreground of {synset.name!r} can be shown beside another object")
    return scene


def reading_order(masks: Sequence[np.ndarray]) -> list[int]:
    """Return the reading order of objects by their centroids; see `saliency_r1.reading_order`.

    Args:
        masks: bool (H, W), none of them empty.

    Returns:
        Indices of `masks`.
    """
    return order_of_places([_centre(mask) for mask in masks])


def _centre(mask: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centroid, each 0 to 1."""
    down, along = mask.sum(1), mask.sum(0)
    total = down.sum()
    y, x = (float(each @ (np.arange(len(each)) + 0.5) / total / len(each)) for each in (down, along))
    return y, x


def _composed(
    source: Foregrounds,
    rng: np.random.Generator,
    rows: Sequence[int],
    areas: Sequence[float],
    matched: Sequence[float],
    central: bool = False,
) -> Scene:
    """Compose the scene of these foregrounds; hidden ones and those without room are left out.

    With `central` the first is near the middle and the second is not.
    """
    ground = _background(source, rng, rows).astype(np.float32)
    cuts = []
    for row, area in zip(rows, areas, strict=True):
        photo = np.array(source.photos.images[row]), np.array(source.photos.masks[row])
        cut = cut_out(*photo, source.aspects[row], source.cut[row], area)
        cuts.append(turned(cut) if rng.random() < 0.5 else cut)
    overlap = float(rng.choice((0.0, 0.12, 0.3), p=(0.5, 0.25, 0.25)))
    places: dict[int, tuple[int, int]] = {}
    taken: list[np.ndarray] = []
    for index in sorted(range(len(cuts)), key=lambda index: -cuts[index].alpha.size):
        x, y = places[index] = place(cuts[index], taken, source.size, rng, overlap, central and index == 0)
        taken.append(solid_at(cuts[index], x, y, source.size))
    masks: dict[int, np.ndarray] = {}
    full: dict[int, int] = {}
    # Objects lower in the picture are nearer.
    for index in sorted(places, key=lambda index: (places[index][1] + cuts[index].alpha.shape[0], index)):
        solid = blend(ground, cuts[index], *places[index], matched[index])
        masks = {other: mask & ~solid for other, mask in masks.items()}
        masks[index], full[index] = solid, int(solid.sum())
    image = np.clip(ground.round(), 0, 255).astype(np.uint8)
    kept = [
        index
        for index in range(len(rows))
        if masks[index].mean() >= LEAST_AREA and masks[index].sum() >= _VISIBLE * full[index]
    ]
    if len(kept) < len(rows):
        # Every visible object needs a mask: compose again without those that are mostly hidden.
        areas, matched = ([each[index] for index in kept] for each in (areas, matched))
        return _composed(source, rng, [rows[index] for index in kept], areas, matched, central)
    order = reading_order([masks[index] for index in range(len(rows))])
    return Scene(
        image,
        tuple(
            SceneObject(
                masks[index],
                source.synsets[rows[index]],
                _still(source.colours[rows[index]], image, masks[index]),
                source.photos.names[rows[index]],
            )
            for index in order
        ),
    )


def _background(source: Foregrounds, rng: np.random.Generator, rows: Sequence[int]) -> np.ndarray:
    """Return a square crop of a photo in true shape, uint8 (S, S, 3), with little of the photo's own object.

    The rest of the object is filled from its surroundings.
    """
    size = source.size
    metres = float(np.exp(np.log(source.metres[list(rows)]).mean())) if len(rows) else 0.0
    best: tuple[float, int, tuple[int, int, int, int]] | None = None
    for _ in range(12 if len(rows) else 24):
        row = int(rng.choice(source.backgrounds))
        if row in rows:
            continue
        apart = abs(math.log(source.metres[row] / metres)) if metres and source.synsets[row] else 0.5
        for _ in range(4):
            box = square_box(source.aspects[row], size, rng.uniform(0.6, 1.0), rng)
            left, top, right, bottom = (edge * 32 // size for edge in box)
            inside = source.small[row, top : bottom + 1, left : right + 1].mean()
            score = float(inside) + 0.02 * apart
            if best is None or score < best[0]:
                best = (score, row, box)
        if best and best[0] < (0.06 if len(rows) else 0.02):
            break
    if best is None:
        row = int(rng.integers(len(source.photos)))
        best = (0.0, row, square_box(source.aspects[row], size, 1.0, rng))
    _, row, box = best
    image = Image.fromarray(np.array(source.photos.images[row]))
    step = max(1, size // 64)
    mask = Image.fromarray(np.array(source.photos.masks[row])).reduce(step).filter(ImageFilter.MaxFilter(5))
    if rng.random() < 0.5:
        image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        box = (size - box[2], box[1], size - box[0], box[3])
    picture = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    small = (box[0] / step, box[1] / step, box[2] / step, box[3] / step)
    hole = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR, box=small)) > 8
    return fill_grained(picture, hole) if hole.any() else picture


def _still(colour: str | None, image: np.ndarray, mask: np.ndarray) -> str | None:
    """Return the colour word if it is true in the scene, else None."""
    if colour is None:
        return None
    pixels = image[mask]
    lab = to_lab(pixels[:: max(1, len(pixels) // 600)])
    shares = name_shares(lab, Level.PLAIN)
    rest = max(share for name, share in shares.items() if name != colour)
    return colour if shares[colour] >= 0.4 and rest <= 0.6 * shares[colour] else None
