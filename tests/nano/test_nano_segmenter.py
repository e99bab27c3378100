"""The embedded segmenter on real photos: the words decide."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.nano import NanoSegmenter


@pytest.fixture(scope="module")
def segmenter():
    return NanoSegmenter.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def cat():
    return Image.fromarray(data.chelsea())


@pytest.fixture(scope="module")
def cat_and_cup():
    """The cat's photo on the left, the coffee cup's on the right."""
    height = 300
    halves = [Image.fromarray(photo).resize((225, height)) for photo in (data.chelsea(), data.coffee())]
    both = Image.new("RGB", (450, height))
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (225, 0))
    return both


def share_on_the_left(mask: np.ndarray) -> float:
    found = mask >= 0.5
    return found[:, : found.shape[1] // 2].sum() / max(found.sum(), 1)


def test_masks_have_the_photo_s_size_and_range(segmenter, cat):
    found = segmenter.segment(segmenter.encode(cat), ["the cat", "the salient object"])
    assert found.probabilities.shape == (2, cat.height, cat.width)
    assert found.probabilities.dtype == np.float32
    assert 0 <= found.probabilities.min() <= found.probabilities.max() <= 1
    assert found.scores.shape == (2,)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_no_expression_gives_no_mask(segmenter, cat):
    assert segmenter.segment(segmenter.encode(cat), []).probabilities.shape == (0, cat.height, cat.width)


def test_many_expressions_equal_one_at_a_time(segmenter, cat_and_cup):
    encoded = segmenter.encode(cat_and_cup)
    expressions = ["the cat", "the cup on the right", "what stands out", "the large zyxxy in the centre"]
    together = segmenter.segment(encoded, expressions)
    for index, expression in enumerate(expressions):
        alone = segmenter.segment(encoded, [expression])
        assert np.abs(together.probabilities[index] - alone.probabilities[0]).max() < 1e-4
        assert abs(together.scores[index] - alone.scores[0]) < 1e-4


@pytest.mark.parametrize(
    ("expression", "left"),
    [
        ("the cat", True),
        ("the cup", False),
        ("the object on the left", True),
        ("the object on the right", False),
        ("the zyxxy on the left", True),
        ("the zyxxy on the right", False),
    ],
)
def test_the_words_pick_the_side(segmenter, cat_and_cup, expression, left):
    mask = segmenter.segment(segmenter.encode(cat_and_cup), [expression]).probabilities[0]
    assert (mask >= 0.5).mean() > 0.03
    share = share_on_the_left(mask)
    assert share > 0.8 if left else share < 0.2


def test_an_unknown_noun_falls_back_on_what_is_salient(segmenter, cat):
    found = segmenter.segment(segmenter.encode(cat), ["the salient object", "the zyxxy"]).probabilities >= 0.5
    assert found[0].any()
    assert (found[0] & found[1]).sum() / (found[0] | found[1]).sum() > 0.7


def test_what_is_not_there_has_an_empty_mask(segmenter, cat):
    found = segmenter.segment(segmenter.encode(cat), ["the school bus", "nothing like that here"])
    assert ((found.probabilities >= 0.5).mean((1, 2)) < 0.02).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (2000, 40)])
def test_odd_sizes(segmenter, size):
    image = Image.new("RGB", size, (10, 200, 30))
    assert segmenter.segment(segmenter.encode(image), ["the dog"]).probabilities.shape == (
        1,
        size[1],
        size[0],
    )


def test_a_folder_without_a_segmenter_is_one_clear_line(tmp_path):
    with pytest.raises(SaliencyError, match="holds no nano segmenter"):
        NanoSegmenter.from_pretrained(tmp_path)
