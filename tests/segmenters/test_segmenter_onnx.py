"""The embedded segmenter run by onnxruntime finds what it finds with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.segmenters.onnx import OnnxSegmenter

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [(600, 400), (90, 120), (2, 300), (1800, 1300)])
def test_masks_are_those_of_torch(onnx_model: Path, size: tuple[int, int]) -> None:
    photo = Image.fromarray(data.coffee()).resize(size)
    found, wanted = (
        OnnxSegmenter(onnx_model / "segmenter", "cpu"),
        NanoSegmenter.from_pretrained(device="cpu"),
    )
    assert isinstance(found, Segmenter)
    texts = ["the cup", "the spoon on the right", "a zebra"]
    one, other = (each.segment(each.encode(photo), texts) for each in (found, wanted))
    assert one.probabilities.dtype == np.float32
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
    assert found.segment(found.encode(photo), []).probabilities.shape == (0, *size[::-1])


def test_a_folder_without_a_segmenter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="holds no nano segmenter"):
        OnnxSegmenter(tmp_path)
