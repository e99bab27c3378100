"""Real photos of few instances out of COCO json: which are kept, what their instances are called."""

import json

import numpy as np
import pytest
from PIL import Image

from drawn_data import real_data
from saliency_r1.errors import SaliencyError
from saliency_r1.scenes.instance_photos import category_nouns, cropped, is_held_out, open_photos, select


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
