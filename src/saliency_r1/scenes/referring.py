"""The training data of the nano segmenter: photos with expressions and the mask of each.

A sample is one photo, plain or composed, with one or two expressions. In a composed photo they name one
object each, so that only the text decides which mask is right. Scenes of up to six objects and real photos of
instances, both optional, have expressions that may name several objects or one of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from saliency_r1.errors import SaliencyError
from saliency_r1.language import expressions
from saliency_r1.language.expressions import Nouns, Region
from saliency_r1.language.naming import NameBook
from saliency_r1.scenes.composing import box_of, fill, paste
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import InstancePhoto, Instances, cropped, flipped
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.scene_expressions import Referred, pick_two, refer, referring
from saliency_r1.scenes.scenes import compose_scene


@dataclass(frozen=True)
class ReferringSample:
    """A photo with its expressions.

    Attributes:
        image: uint8 (S, S, 3).
        expressions: the texts.
        masks: uint8 (len(expressions), S, S), 0 to 255; zeros for an absent object.
    """

    image: np.ndarray
    expressions: tuple[str, ...]
    masks: np.ndarray


@dataclass(frozen=True)
class Mix:
    """The shares of the kinds of samples, 0 to 1.

    Attributes:
        composed: photos of two objects.
        negative: the second expression of a photo names something absent.
        crop: a random crop of a plain photo.
        alone: a plain photo has only the expression for what is salient.
        scenes: scenes of up to six objects, drawn before all other kinds.
        instances: real photos of one to six named instances, drawn likewise.
        pasted: such a photo gets up to three instances of other photos.
    """

    composed: float = 0.35
    negative: float = 0.08
    crop: float = 0.5
    alone: float = 0.0
    scenes: float = 0.0
    instances: float = 0.0
    pasted: float = 0.0


class ReferringPhotos:
    """An endless, seeded stream of samples over packed photos; sample i is the same in any order and worker.

    Args:
        photos: the packed training photos.
        nouns: the name of each photo's object, or None.
        colours: the colour word of each photo's object, or None.
        seed: random seed of the stream.
        mix: the shares of the kinds of samples.
        scenes: composer of scenes, and the names of their objects; needed for a share of scenes.
        instances: the photos of named instances; needed for a share of them.

    Raises:
        SaliencyError: if the mix has a share of a kind without its source.
    """

    def __init__(
        self,
        photos: PackedPhotos,
        nouns: Sequence[Nouns | None],
        colours: Sequence[str | None],
        seed: int,
        mix: Mix | None = None,
        scenes: tuple[Foregrounds, NameBook] | None = None,
        instances: Sequence[InstancePhoto] = (),
    ) -> None:
        self.photos, self.nouns, self.colours, self.seed = photos, nouns, colours, seed
        self.mix = mix or Mix()
        self.scenes, self.instances = scenes, instances
        if (self.mix.scenes and scenes is None) or (self.mix.instances and not instances):
            raise SaliencyError(
                f"a mix of {self.mix.scenes} scenes and {self.mix.instances} photos of instances: "
                "expected what to make them of, give it or set the share to 0"
            )
        self.pasting = Instances(instances) if self.mix.pasted else None
        self.categories = list(dict.fromkeys(nouns for photo in instances for nouns in photo.nouns))
        self.known = list(dict.fromkeys(each for each in nouns if each))

    def __getitem__(self, number: int) -> ReferringSample:
        epoch, position = divmod(number, len(self.photos))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))
        rng = np.random.default_rng((self.seed, epoch, position))
        row = int(order[position])
        # Without these shares nothing is drawn, so that older recipes give the same results.
        draw = rng.random() if self.mix.scenes or self.mix.instances else 1.0
        if draw < self.mix.scenes and self.scenes is not None:
            return self._jittered(self._of_scene(*self.scenes, rng), rng)
        if draw < self.mix.scenes + self.mix.instances:
            return self._jittered(self._of_instances(rng), rng)
        if rng.random() < self.mix.composed:
            composed = compose(self, row, int(rng.integers(len(self.photos))), rng)
            if composed is not None:
                return self._jittered(self._of_two(*composed, rng), rng)
        return self._jittered(self._of_one(row, rng), rng)

    def _of_one(self, row: int, rng: np.random.Generator) -> ReferringSample:
        image, mask = np.array(self.photos.images[row]), np.array(self.photos.masks[row])
        if rng.random() < 0.5:
            image, mask = mirrored(image), mirrored(mask)
        if rng.random() < self.mix.crop:
            image, mask = _crop(image, mask, rng)
        region = Region(mask > 127, self.nouns[row], self.colours[row])
        if not region.mask.any():
            return ReferringSample(image, (expressions.alone(region, rng),) * 2, np.stack([mask, mask]))
        if self.mix.alone and rng.random() < self.mix.alone:
            return ReferringSample(image, (str(rng.choice(expressions.GENERIC)),), mask[None])
        texts, masks = [str(rng.choice(expressions.GENERIC)), expressions.alone(region, rng)], [mask, mask]
        if rng.random() < self.mix.negative:
            absent = expressions.absent([region.nouns], self.known, rng)
            if absent:
                texts[1], masks[1] = absent, np.zeros_like(mask)
        return ReferringSample(image, tuple(texts), np.stack(masks))

    def _of_two(self, image: np.ndarray, regions: list[Region], rng: np.random.Generator) -> ReferringSample:
        texts, masks = [], []
        for region, other in (regions, regions[::-1]):
            text = expressions.apart(region, other, rng)
            if text:
                texts.append(text)
                masks.append(region.mask)
        union = regions[0].mask | regions[1].mask
        while len(texts) < 2:
            texts.append(str(rng.choice(expressions.GENERIC)))
            masks.append(union)
        draw = rng.random()
        if draw < 0.1:
            absent = expressions.absent([region.nouns for region in regions], self.known, rng)
            if absent:
                texts[0], masks[0] = absent, np.zeros_like(union)
        elif draw < 0.2:
            texts[0], masks[0] = str(rng.choice(expressions.GENERIC)), union
        return ReferringSample(image, tuple(texts), np.stack(masks).astype(np.uint8) * np.uint8(255))

    def _of_scene(self, source: Foregrounds, names: NameBook, rng: np.random.Generator) -> ReferringSample:
        scene = compose_scene(source, rng)
        masks = [each.mask for each in scene.objects]
        return _of_many(scene.image, masks, referring(scene, rng, names), rng)

    def _of_instances(self, rng: np.random.Generator) -> ReferringSample:
        photo = self.instances[int(rng.integers(len(self.instances)))]
        if rng.random() < self.mix.crop:
            photo = cropped(photo, _box(photo.image.shape[0], rng)) or photo
        if rng.random() < 0.5:
            photo = flipped(photo)
        if self.pasting and rng.random() < self.mix.pasted:
            photo = self.pasting.paste_onto(photo, rng)
        regions = [Region(mask, nouns) for mask, nouns in zip(photo.masks, photo.nouns, strict=True)]
        found = refer(regions, rng, self.categories, closed=False)
        sample = _of_many(photo.image, photo.masks, found, rng)
        if photo.salient is None or rng.random() < 0.4:
            return sample
        texts = (str(rng.choice(expressions.GENERIC)), sample.expressions[1])
        return replace(sample, expressions=texts, masks=np.stack([photo.salient, sample.masks[1]]))

    def _jittered(self, sample: ReferringSample, rng: np.random.Generator) -> ReferringSample:
        """Change brightness and contrast, and channels only so little that colour words stay true."""
        if rng.random() < 0.4:
            return sample
        table = (np.arange(256) - 127.0) * rng.uniform(0.7, 1.3) + 127.0 + rng.uniform(-30, 30)
        table = table[:, None] * rng.uniform(0.95, 1.05, 3)
        table = np.clip(table, 0, 255).astype(np.uint8)
        channels = [table[:, channel][sample.image[..., channel]] for channel in range(3)]
        return replace(sample, image=np.stack(channels, axis=-1))


def _of_many(
    image: np.ndarray,
    masks: Sequence[np.ndarray] | np.ndarray,
    found: Sequence[Referred],
    rng: np.random.Generator,
) -> ReferringSample:
    """Choose two of the expressions, each with the union of the masks that it refers to."""
    chosen = pick_two(found, rng)
    goals = np.zeros((2, *image.shape[:2]), np.uint8)
    for goal, referred in zip(goals, chosen, strict=True):
        for index in referred.indices:
            goal[masks[index]] = 255
    return ReferringSample(image, tuple(each.text for each in chosen), goals)


def mirrored(array: np.ndarray) -> np.ndarray:
    """Mirror left to right, for (H, W) and (H, W, 3)."""
    return np.ascontiguousarray(array[:, ::-1])


def compose(
    source: ReferringPhotos, first: int, second: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[Region]] | None:
    """Compose a photo with the foregrounds of two photos; None if they cannot be distinguished in it.

    There are three ways: paste the second onto the first's photo; paste both onto a third photo whose own
    object was filled; put the two photos side by side or one above the other.
    """
    photos, size = source.photos, source.photos.images.shape[1]
    pictures, masks = [], []
    for row in (first, second):
        image, mask = np.array(photos.images[row]), np.array(photos.masks[row])
        if rng.random() < 0.5:
            image, mask = mirrored(image), mirrored(mask)
        if not 0.01 < (mask > 127).mean() < 0.85:
            return None
        pictures.append(image)
        masks.append(mask)
    way = rng.random()
    if way < 0.45 and (masks[0] > 127).mean() < 0.5:
        own = masks[0] > 127
        scene, pasted = paste(pictures[0], pictures[1], masks[1], _longest(size, rng), rng, own)
        visible = [own & ~pasted, pasted]
    elif way < 0.85:
        third = int(rng.integers(len(photos)))
        hole = np.asarray(photos.masks[third]) > 0
        if hole.mean() > 0.5:
            return None
        hole = np.asarray(Image.fromarray(hole.astype(np.uint8)).filter(ImageFilter.MaxFilter(7))) > 0
        scene = fill(np.array(photos.images[third]), hole)
        scene, one = paste(scene, pictures[0], masks[0], _longest(size, rng), rng, np.zeros_like(hole))
        scene, two = paste(scene, pictures[1], masks[1], _longest(size, rng), rng, one)
        visible = [one & ~two, two]
    else:
        turned = rng.random() < 0.5  # one above the other is side by side with the axes swapped
        if turned:
            pictures = [picture.transpose(1, 0, 2) for picture in pictures]
            masks = [mask.T for mask in masks]
        scene, visible = _beside([_half(image, mask) for image, mask in zip(pictures, masks, strict=True)])
        if turned:
            scene, visible = np.ascontiguousarray(scene.transpose(1, 0, 2)), [mask.T for mask in visible]
    if min(mask.mean() for mask in visible) < 0.005:
        return None
    regions = [
        Region(mask, source.nouns[row], source.colours[row])
        for mask, row in zip(visible, (first, second), strict=True)
    ]
    return scene, regions


def _longest(size: int, rng: np.random.Generator) -> int:
    return int(size * rng.uniform(0.25, 0.65))


def _crop(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Crop randomly to 70 to 100 % of each side, keeping at least 80 % of the object."""
    size = mask.shape[0]
    box = left, top, right, bottom = _box(size, rng)
    inside = (mask[top:bottom, left:right] > 127).sum()
    if inside < 0.8 * (mask > 127).sum():
        return image, mask
    out = [
        np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR, box=box))
        for array in (image, mask)
    ]
    return out[0], out[1]


def _box(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw left, top, right, bottom of a random crop of 70 to 100 % of each side."""
    side_y, side_x = (int(size * rng.uniform(0.7, 1.0)) for _ in range(2))
    y, x = int(rng.integers(size - side_y + 1)), int(rng.integers(size - side_x + 1))
    return x, y, x + side_x, y + side_y


def _half(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop a photo to half its width around its object: uint8 (S, S/2, 3) and bool (S, S/2)."""
    size = mask.shape[0]
    left, _, right, _ = box_of(mask > 127)
    width = min(size, max(size // 2, right - left + size // 8))
    start = min(max(0, (left + right - width) // 2), size - width)
    box, target = (start, 0, start + width, size), (size // 2, size)
    narrow = Image.fromarray(np.ascontiguousarray(image)).resize(target, Image.Resampling.BILINEAR, box=box)
    solid = Image.fromarray(np.ascontiguousarray(mask)).resize(target, Image.Resampling.BILINEAR, box=box)
    return np.asarray(narrow), np.asarray(solid) > 127


def _beside(halves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Put two cropped photos side by side."""
    empty = np.zeros_like(halves[0][1])
    scene = np.concatenate([half[0] for half in halves], axis=1)
    return scene, [np.concatenate([halves[0][1], empty], 1), np.concatenate([empty, halves[1][1]], 1)]
