"""The benchmark of training on one's own photos: which photos it takes, what it writes, what it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_data import save, scene
from repository import ROOT, module_at
from saliency_r1.data.layouts import load_splits
from saliency_r1.errors import SaliencyError
from saliency_r1.scenes.instance_photos import is_held_out

own = module_at("benchmarks/own_photos.py")
DOG, PERSON = (4, 4, 40, 60), (50, 4, 90, 60)


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos: every other one shows a dog alone, the others a dog and a person."""
    root = tmp_path_factory.mktemp("pets")
    images, annotations = [], []
    for number in range(40):
        save(scene(number)[0], root / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "width": 96, "height": 72})
        for category, box in ((1, DOG), (2, PERSON))[: 1 + number % 2]:
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "iscrowd": 0}
                | {"segmentation": rectangle(*box)}
            )
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_photos_of_the_wanted_thing_are_split_as_for_the_weights(pets: Path) -> None:
    wanted = frozenset({"dog"})
    for others in (False, True):
        train, held_out = own.own_photos(pets, wanted, others)
        assert train
        assert held_out
        assert len(train) + len(held_out) == 20
        assert all(is_held_out(image.image.name) for image in held_out)
        assert not any(is_held_out(image.image.name) for image in train)
        assert {len(image.instances) for image in train} == {1 + others}
    with pytest.raises(SaliencyError, match="no photo shows zebra"):
        own.own_photos(pets, frozenset({"zebra"}), False)


def test_a_folder_is_as_the_page_describes_it(pets: Path, tmp_path: Path) -> None:
    train, _ = own.own_photos(pets, frozenset({"dog"}), True)
    own.write_folder(train, frozenset({"dog"}), tmp_path / "mine")
    samples = [sample for split in load_splits(tmp_path / "mine") for sample in split]
    assert len(samples) == len(train)
    assert {sample.synset.name for sample in samples if sample.synset} == {"dog"}
    mask = np.asarray(Image.open(samples[0].mask)) > 0
    assert mask[10:50, 10:35].all()
    assert not mask[:, 48:].any()


def test_the_commands_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "own-photos.md").read_text(encoding="utf-8").replace("\\\n    ", "")
    for stage, command in own.commands(1.0):
        words = [word for word in command.split() if not word.startswith(("max_steps", "validate", "save_"))]
        if stage != "measure":
            assert f"saliency-r1 {' '.join(words)}\n" in page, command


def test_numbers_and_steps() -> None:
    assert [own.number(value) for value in (0.5, 1.0, 0.0456)] == [".500", "1.000", ".046"]
    assert own.overrides("segmenter", 0.25) == ["max_steps=100", "validate_every=25", "save_every=25"]
