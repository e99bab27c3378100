"""Composed photos: filling, pasting, and the samples made of them."""

import numpy as np
import pytest

from saliency_r1.data.samples import Synset
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import NameBook
from saliency_r1.scenes.composing import box_of, fill, paste
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import Mix, ReferringPhotos, compose

SIZE = 64
RED, BLUE = (200, 30, 30), (30, 30, 200)


def drawn(colour, box):
    image = np.full((SIZE, SIZE, 3), 120, np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = colour
    mask[top:bottom, left:right] = 255
    return image, mask


@pytest.fixture
def photos():
    pairs = [
        drawn(RED, (10, 20, 30, 44)),
        drawn(BLUE, (34, 8, 60, 30)),
        drawn((20, 180, 40), (20, 20, 44, 50)),
    ]
    images, masks = (np.stack(parts) for parts in zip(*pairs, strict=True))
    return PackedPhotos(("a", "b", "c"), images, masks)


@pytest.fixture
def nouns():
    synsets = [Synset("n1", "dog", (), ("animal",)), Synset("n2", "bus", (), ("vehicle",)), None]
    book = NameBook({synset: 20 for synset in synsets if synset})
    return [Nouns.of(synset, book) if synset else None for synset in synsets]


def test_fill_takes_the_hole_from_its_surroundings_and_leaves_the_rest():
    image, mask = drawn(RED, (20, 20, 50, 50))
    filled = fill(image, mask > 0)
    assert np.abs(filled[mask > 0].astype(int) - 120).max() <= 2
    assert (filled[mask == 0] == image[mask == 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 37)])
def test_fill_of_everything_is_grey(size):
    image = np.zeros((*size, 3), np.uint8)
    assert (fill(image, np.ones(size, bool)) == 127).all()


def test_paste_puts_the_foreground_where_its_mask_says():
    scene = np.full((SIZE, SIZE, 3), 255, np.uint8)
    image, mask = drawn(RED, (10, 20, 30, 44))
    keep_off = np.zeros((SIZE, SIZE), bool)
    keep_off[:, :20] = True
    pasted, solid = paste(scene, image, mask, 30, np.random.default_rng(0), keep_off, tries=50)
    left, top, right, bottom = box_of(solid)
    assert bottom - top in range(28, 31)
    assert not (solid & keep_off).any()
    inner = solid[top + 3 : bottom - 3, left + 3 : right - 3]
    assert inner.all()
    assert np.abs(pasted[top + 3 : bottom - 3, left + 3 : right - 3].astype(int) - RED).max() < 12
    assert (pasted[~np.pad(solid, 3)[3:-3, 3:-3]] > 60).any()


def test_composed_masks_do_not_overlap_and_hold_the_right_colours(photos, nouns):
    source = ReferringPhotos(photos, nouns, [None] * 3, seed=0)
    seen = 0
    for seed in range(40):
        composed = compose(source, 0, 1, np.random.default_rng(seed))
        if composed is None:
            continue
        seen += 1
        scene, (first, second) = composed
        assert scene.shape == (SIZE, SIZE, 3)
        assert not (first.mask & second.mask).any()
        assert np.median(scene[first.mask][:, 0]) > 150 > np.median(scene[first.mask][:, 2])
        assert np.median(scene[second.mask][:, 2]) > 150 > np.median(scene[second.mask][:, 0])
    assert seen > 20


def test_samples_depend_on_seed_and_number_alone(photos, nouns):
    mix = Mix(composed=0.5, negative=0.3, crop=1.0)
    one, two = (ReferringPhotos(photos, nouns, [None, "blue", None], 5, mix) for _ in range(2))
    for number in (11, 3, 7, 100):
        assert one[number].expressions == two[number].expressions
        assert (one[number].image == two[number].image).all()
        assert (one[number].masks == two[number].masks).all()
    other = ReferringPhotos(photos, nouns, [None] * 3, 6, mix)
    assert any(one[number].expressions != other[number].expressions for number in range(20))


def test_negatives_have_empty_masks(photos, nouns):
    source = ReferringPhotos(photos, nouns, [None] * 3, 1, Mix(composed=0.0, negative=1.0))
    for number in range(20):
        sample = source[number]
        assert sample.masks[0].any()
        if "dog" in sample.expressions[1] or "bus" in sample.expressions[1] or "no" in sample.expressions[1]:
            assert not sample.masks[1].any()
