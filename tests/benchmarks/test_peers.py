"""The benchmark beside other networks: which photos of animals it takes, and its table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from drawn_data import draw_pairs, save, scene
from repository import ROOT, module_at
from saliency_r1.errors import SaliencyError
from saliency_r1.scenes.instance_photos import is_held_out

peers = module_at("benchmarks/peers.py")


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def draw_animals(root: Path) -> Path:
    """40 photos: of every four, one large dog, one small dog, two dogs, one large chair."""
    images, annotations = [], []
    large, small, second = (4, 4, 60, 60), (4, 4, 14, 14), (62, 4, 94, 60)
    for number in range(40):
        save(scene(number)[0], root / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "width": 96, "height": 72})
        boxes = ((large,), (small,), (large, second), (large,))[number % 4]
        category = 2 if number % 4 == 3 else 1
        annotations += [
            {"id": 10 * number + index, "image_id": number, "category_id": category, "iscrowd": 0}
            | {"segmentation": rectangle(*box)}
            for index, box in enumerate(boxes)
        ]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "chair"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_single_animals_are_held_out_photos_of_one_large_animal(tmp_path: Path) -> None:
    found = peers.single_animals([draw_animals(tmp_path)])
    wanted = {f"{number:03d}.png" for number in range(0, 40, 4) if is_held_out(f"{number:03d}.png")}
    assert wanted
    assert {path.name for path, _, _ in found} == wanted
    assert all(mask[5:59, 5:59].all() and not mask[62:].any() for _, mask, _ in found)
    assert {name for _, _, name in found} == {"dog"}


def test_a_kind_of_an_animal_names_it_rightly() -> None:
    assert {"dog", "pug"} <= peers.right_names("dog")
    assert not {"cat", "animal", "object"} & peers.right_names("dog")


def test_photos_without_a_mask_are_refused(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 3)
    assert len(peers.pairs_of(tmp_path / "images", tmp_path / "masks")) == 3
    (tmp_path / "masks" / "0001.png").unlink()
    with pytest.raises(SaliencyError, match="1 photos in"):
        peers.pairs_of(tmp_path / "images", tmp_path / "masks")


@pytest.mark.slow
def test_the_table(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 4)
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["photo", "channels"], ["mean"], keepdims=1)],
        "brightness",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 3, 320, 320])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)],
        [helper.make_tensor("channels", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "bright.onnx")
    script = [sys.executable, ROOT / "benchmarks" / "peers.py", "--every", "2", "--threads", "1"]
    given = ["--photos", tmp_path / "images", "--masks", tmp_path / "masks"]
    command = [*map(str, [*script, *given, "--onnx"])]
    done = subprocess.run([*command, str(tmp_path / "bright.onnx")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 photos, 1 threads")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["ours, with reasoning", "ours, --fast", "bright"]
    numbers = np.array([[float(cell.split()[0]) for cell in row[1:-1]] for row in rows[2:]])
    assert ((numbers[:, :6] >= 0) & (numbers[:, :6] <= 1.01)).all()
    assert (numbers[:, 6] > 0).all()
    assert numbers[2, 7] == 1
    assert (numbers[:2, 8] > numbers[2, 8]).all()  # torch and two networks take more memory than this one
    assert numbers[0, 9] == numbers[1, 9] > 10
    assert {row[-1] for row in rows[2:]} == {"–"}  # what drawn photos show has no name
    failed = subprocess.run([*command, str(tmp_path / "none.onnx")], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "none.onnx: no such file" in failed.stderr.splitlines()[-1]
