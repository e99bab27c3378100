"""The reader of names is fitted on what the policy will look at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_r1.data.true_instances import encode
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.training.fine_tuning.fit_names import NamedRegions, calibrate, fit_names, read_regions


@pytest.fixture(scope="module")
def policy() -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(None, device="cpu", dtype="float32")


def halves() -> tuple[np.ndarray, np.ndarray]:
    left = np.zeros((60, 60), bool)
    left[10:50, 5:25] = True
    return left, left[:, ::-1].copy()


def photo(folder: Path, *masks: np.ndarray) -> Any:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    for mask, colour in zip(masks, ((180, 40, 30), (30, 60, 160)), strict=False):
        pixels[mask] = colour
    path = folder / f"{len(masks)}.png"
    Image.fromarray(pixels).save(path)
    regions = tuple((encode(mask), f"n{number}") for number, mask in enumerate(masks))
    return SimpleNamespace(path=path, regions=regions)


def test_regions_are_read_where_the_policy_looks(policy: TransformersPolicy, tmp_path: Path) -> None:
    alone, both = photo(tmp_path, halves()[0]), photo(tmp_path, *halves())
    found = read_regions(policy.model, policy.processor, [alone, both], tmp_path / "kept.npz")
    assert found.labels == ("n0", "n0", "n1")
    assert found.features.shape == found.seen.shape == (3, 1280)
    assert found.alone.tolist() == [True, False, False]
    adapter = policy.model.model.adapter
    pixels = policy.processor.image_processor([Image.open(alone.path)], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = policy.model.model.encode_images(pixels)
        read, _ = adapter(features)[1]
        mine = adapter.names.logits(found.seen[:1].to(features.dtype))
    torch.testing.assert_close(mine[0], read[0, 0], atol=0.05, rtol=0.01)
    assert not torch.allclose(found.seen[1], found.seen[2], atol=0.05)  # each around its own middle
    again = read_regions(policy.model, policy.processor, [], tmp_path / "kept.npz")
    torch.testing.assert_close(again.seen, found.seen)


def test_regions_kept_without_what_is_seen_are_read_again(policy: TransformersPolicy, tmp_path: Path) -> None:
    np.savez(tmp_path / "kept.npz", features=np.zeros((9, 1280), np.float16), labels=np.array(["n9"] * 9))
    found = read_regions(
        policy.model, policy.processor, [photo(tmp_path, halves()[0])], tmp_path / "kept.npz"
    )
    assert found.labels == ("n0",)


def test_the_threshold_is_chosen_on_regions_that_are_alone() -> None:
    tree = NameTree(("n0", "n1"), (("cat",), ("mug",)))
    found = []
    for alone in (torch.ones(400, dtype=torch.bool), torch.arange(400) < 200):
        reader = NameReader(tree, 0.5, 8)
        reader.spelling[:, 0] = torch.arange(len(tree.words) + 1)
        for weights in reader.head.parameters():
            torch.nn.init.zeros_(weights)
        reader.head.weight.data[0, 0] = 2.0
        features = torch.zeros(400, 1280)
        features[:, 0] = 1.0  # read as a cat, and wrongly so for each second one of the latter half
        labels = ("n0",) * 200 + ("n1", "n0") * 100
        calibrate(reader, NamedRegions(features, features, alone, labels))
        found.append(float(reader.temperature))
    assert found == [pytest.approx(1.8, abs=0.06), pytest.approx(0.3)]


def test_names_are_learned_both_ways_of_looking() -> None:
    torch.manual_seed(0)
    tree = NameTree(("n0", "n1"), (("cat", "animal"), ("mug",)))
    reader = NameReader(tree, 0.5, 8)
    reader.spelling[:, 0] = torch.arange(len(tree.words) + 1)
    labels = ("n0", "n1") * 200
    one = torch.eye(2).repeat(200, 1)
    features, seen = torch.zeros(400, 1280), torch.zeros(400, 1280)
    features[:, :2], seen[:, 2:4] = 4 * one, 4 * one  # each way shows a name elsewhere
    regions = NamedRegions(features, seen, torch.ones(400, dtype=torch.bool), labels)
    fit_names(reader, regions, epochs=60)
    with torch.no_grad():
        for shown in (features, seen):
            assert reader.logits(shown[:2]).argmax(1).tolist() == [0, 1]
    assert calibrate(reader, regions)["true"] == 1
