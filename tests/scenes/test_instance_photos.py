"""Real photos of few instances out of COCO json: which are kept, what their instances are called."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from drawn_data import real_data
from saliency_r1.errors import SaliencyError
from saliency_r1.scenes.instance_photos import (
    InstancePhoto,
    Instances,
    category_nouns,
    cropped,
    flipped,
    is_held_out,
    open_photos,
    salient_of,
    select,
)


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def drawn_coco(tmp_path):
    """25 photos of two instances; but the second of seven, the third of a tiny one, the fourth of a crowd."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []

    def add(number, box, category=1, crowd=0):
        annotations.append(
            {"id": len(annotations), "image_id": number, "category_id": category, "iscrowd": crowd}
            | {"segmentation": rectangle(*box)}
        )

    for number in range(25):
        name = f"{number:03d}.png"
        Image.new("RGB", (80, 40), (10, 10 * number, 90)).save(tmp_path / "images" / name)
        images.append({"id": number, "file_name": name, "width": 80, "height": 40})
        if number == 1:
            for step in range(7):
                add(number, (11 * step, 0, 11 * step + 10, 40))
        elif number == 2:
            add(number, (0, 0, 10, 10))
        else:
            add(number, (4, 4, 24, 36))
            add(number, (50, 10, 76, 30), category=2, crowd=number == 3)
    categories = [{"id": 2, "name": "zebra"}, {"id": 1, "name": "tv"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def test_photos_of_few_and_large_instances_are_kept_and_split_by_name(drawn_coco):
    train, validation = (select(drawn_coco, split) for split in ("train", "validation"))
    kept = {image.name for image, _ in train + validation}
    assert kept == {f"{number:03d}" for number in range(25)} - {"001", "002", "003"}
    assert validation
    assert {image.name for image, _ in validation} == {name for name in kept if is_held_out(f"{name}.png")}
    assert all(names == ("tv", "zebra") for _, names in train + validation)
    more = {image.name for split in ("train", "validation") for image, _ in select(drawn_coco, split, 7)}
    assert more == kept | {"001"}


def test_opened_photos_are_squares_with_a_mask_and_a_noun_each(drawn_coco):
    photo = open_photos([drawn_coco], "train", 64)[0]
    assert photo.image.shape == (64, 64, 3)
    assert photo.masks.shape == (2, 64, 64)
    columns = np.flatnonzero(photo.masks[0].any(0)) / 64
    assert columns[0] == pytest.approx(4 / 80, abs=0.02)
    assert columns[-1] == pytest.approx(24 / 80, abs=0.03)
    assert [nouns.names for nouns in photo.nouns] == [("tv",), ("zebra",)]
    assert "television" in photo.nouns[0].synonyms
    assert "animal" in photo.nouns[1].hypernyms


def test_a_crop_keeps_the_instances_or_is_refused(drawn_coco):
    photo = open_photos([drawn_coco], "train", 64)[0]
    assert cropped(photo, (20, 0, 64, 64)) is None
    near = cropped(photo, (0, 0, 62, 58))
    assert near is not None
    assert near.masks.shape == photo.masks.shape
    assert (near.masks.sum((1, 2)) > photo.masks.sum((1, 2))).all()


def test_pasted_instances_have_masks_names_and_their_own_pixels(drawn_coco):
    photos = open_photos([drawn_coco], "train", 64)
    pool = Instances(photos)
    sizes = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        photo = photos[seed % len(photos)]
        many = pool.paste_onto(photo, rng)
        sizes.add(len(many.nouns))
        assert len(many.masks) == len(many.nouns) <= 6
        assert many.nouns[:2] == photo.nouns
        assert many.masks.sum(0).max() == 1, "a pixel belongs to one instance"
        kept, whole = many.masks[:2].sum((1, 2)), photo.masks.sum((1, 2))
        assert (kept >= 0.6**3 * whole).all()
        outside = ~many.masks[2:].any(0)
        touched = (many.image != photo.image).any(-1)
        near = np.zeros_like(outside)
        for down in range(-2, 3):
            for right in range(-2, 3):
                near |= np.roll(~outside, (down, right), (0, 1))
        assert not (touched & ~near).any(), "only what was pasted, and its soft edge, has changed"
    assert sizes >= {3, 4, 5}


def test_a_photo_of_six_instances_gets_no_more():
    masks = np.zeros((6, 64, 64), bool)
    for index, mask in enumerate(masks):
        mask[:, 10 * index : 10 * index + 8] = True
    image = np.zeros((64, 64, 3), np.uint8)
    full = InstancePhoto("full", image, masks, (category_nouns("cat"),) * 6)
    assert Instances([full]).paste_onto(full, np.random.default_rng(0)) is full


def test_what_stands_out_among_pasted_instances_is_unknown(drawn_coco):
    photos = [
        replace(each, salient=np.zeros((64, 64), np.uint8)) for each in open_photos([drawn_coco], "train", 64)
    ]
    assert Instances(photos).paste_onto(photos[0], np.random.default_rng(0)).salient is None


def test_compound_category_names_are_nouns_of_their_own():
    assert category_nouns("dining table").synonyms == ("table",)
    assert category_nouns("Traffic Light").names == ("traffic light",)


def test_no_such_split_is_one_clear_line(drawn_coco, tmp_path):
    with pytest.raises(SaliencyError, match="split 'test': expected train or validation"):
        select(drawn_coco, "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SaliencyError, match="no COCO json found"):
        select(tmp_path / "empty", "train")


@pytest.mark.parametrize(("name", "least"), [("COCO-train", 60), ("balloon-train", 15)])
def test_real_sets(name, least):
    train, validation = (select(real_data(name), split) for split in ("train", "validation"))
    assert len(train) >= least
    assert 0 < len(validation) < len(train)
    for image, names in train + validation:
        assert 1 <= len(image.instances) == len(names) <= 6


def square(left: int, top: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_salient_are_the_instances_that_a_teacher_covers():
    masks = np.stack([square(2, 2), square(40, 40)])
    soft = square(3, 3).astype(np.uint8) * np.uint8(200)
    assert (salient_of(masks, soft) == masks[0] * 255).all()
    both = (square(2, 2) | square(40, 40)).astype(np.uint8) * np.uint8(255)
    assert (salient_of(masks, both) == both).all()


def test_a_teacher_that_shows_something_else_is_not_believed():
    masks = np.stack([square(2, 2), square(40, 40)])
    elsewhere = square(40, 2).astype(np.uint8) * np.uint8(255)
    assert salient_of(masks, elsewhere) is None
    wide = np.full((64, 64), 255, np.uint8)
    assert salient_of(masks, wide) is None
    assert salient_of(masks, None) is None
    assert (salient_of(masks[:1], elsewhere) == masks[0] * 255).all()  # alone in its photo, over 8 %
    assert salient_of(np.stack([square(2, 2, 6)]), elsewhere) is None


def test_teacher_s_masks_are_found_by_folder_and_name_and_follow_crops_and_mirrors(drawn_coco, tmp_path):
    teacher = tmp_path / "teacher"
    (teacher / drawn_coco.name).mkdir(parents=True)
    for photo in open_photos([drawn_coco], "train", 80):
        whole = photo.masks[0].astype(np.uint8) * np.uint8(255)
        Image.fromarray(whole).resize((80, 40)).save(teacher / drawn_coco.name / f"{photo.name}.png")
    photos = open_photos([drawn_coco], "train", 80, teacher)
    assert all(((photo.salient > 127) == photo.masks[0]).all() for photo in photos)
    assert all(photo.salient is None for photo in open_photos([drawn_coco], "train", 80))
    mirror = flipped(photos[0])
    assert ((mirror.salient > 127) == mirror.masks[0]).all()
    assert (mirror.image[:, 0] == photos[0].image[:, -1]).all()
    part = cropped(photos[0], (2, 0, 80, 78))
    assert part is not None
    assert ((part.salient > 127) == part.masks[0]).mean() > 0.99
