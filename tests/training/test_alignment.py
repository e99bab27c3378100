"""Names and regions: after alignment a name finds its region, also among phrases."""

import numpy as np
import pytest
import torch

from saliency_r1.data.samples import Synset
from saliency_r1.language.expressions import Nouns, vocabulary
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.backbone import classifier_weights
from saliency_r1.nano.segmenter_model import NanoSegmenterModel, SegmenterConfig, normalise
from saliency_r1.scenes.instance_photos import InstancePhoto
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.training.segmenter.alignment import align, class_regions

KINDS = {"dog": (220, 40, 40), "bus": (40, 40, 220), "pear": (40, 200, 40)}


@pytest.fixture
def aligned(tmp_path):
    """Twelve drawn photos of three kinds, and a model on ImageNet's features aligned on them."""
    rng = np.random.default_rng(0)
    images = rng.integers(100, 140, (12, 64, 64, 3)).astype(np.uint8)
    masks = np.zeros((12, 64, 64), np.uint8)
    synsets = [Synset(f"n{index}", name, (), ("entity",)) for index, name in enumerate(KINDS)]
    for row in range(12):
        images[row, 12:52, 12:52] = list(KINDS.values())[row % 3]
        masks[row, 12:52, 12:52] = 255
    book = NameBook(dict.fromkeys(synsets, 20))
    nouns = [Nouns.of(synsets[row % 3], book) for row in range(12)]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = SegmenterConfig(tuple(vocabulary(nouns)), image_size=64, width=32, layers=1, pyramid=16)
    model = NanoSegmenterModel(config)
    model.backbone.load_imagenet()
    model.semantics.load_imagenet()
    photos = PackedPhotos(tuple(map(str, range(12))), images, masks)
    share = align(model, photos, nouns, tmp_path, 0, torch.device("cpu"), steps=60, batch_size=24)
    return model, images, share, tmp_path


def test_names_find_their_photos(aligned):
    model, images, share, cache = aligned
    assert share > 0.9
    assert np.load(cache / "regions-lite0.npy").shape == (12, 1280)
    words = torch.tensor(model.word_list.encode([f"the {name} on the left" for name in KINDS], 16))
    with torch.no_grad():
        meanings = model.encode(normalise(torch.from_numpy(images))).meanings.mean((2, 3))
        best = (meanings @ model.meaning(words).T).argmax(1)
    assert best.tolist() == [row % 3 for row in range(12)]


def test_words_for_anything_mean_nothing(aligned):
    model = aligned[0]
    words = torch.tensor(model.word_list.encode(["object", "thing"], 16))
    assert (model.meaning(words) == 0).all()


def test_the_best_matching_cells_come_first(aligned):
    model, images, *_ = aligned
    words = torch.tensor(model.word_list.encode(["dog", "bus"], 16))
    with torch.no_grad():
        meanings = model.encode(normalise(torch.from_numpy(images[[0, 0]]))).meanings
        maps = model.matches(meanings, words)
    assert maps.shape == (2, 16, 3)
    assert maps[0, :, 0].mean() > maps[1, :, 0].mean()
    assert (maps[..., 2] >= maps[..., 0] - 1e-5).all()


def test_a_class_without_photos_lies_where_the_classifier_expects_it():
    """Two of four classes have regions; the other two are found from the classifier's weights alone."""
    torch.manual_seed(0)
    weights = classifier_weights("lite0")
    weights = weights - weights.mean(0)
    spread = torch.rand(1280) + 0.5  # one covariance for all classes
    rows = [3, 50, 700, 900]
    names = ["goldfish", "frog", "pan", "fence"]
    nouns = {row: Nouns((name,), (), (), frozenset([name])) for row, name in zip(rows, names, strict=True)}
    means = {row: weights[row] * spread.square() for row in rows}
    regions = torch.stack(
        [means[row] + 0.02 * spread * torch.randn(1280) for row in rows[:2] for _ in range(400)]
    )
    known = [nouns[row] for row in rows[:2] for _ in range(400)]
    deviation = torch.ones(1280)
    made = class_regions(regions, known, nouns, deviation, "lite0")
    truth = torch.stack([means[row] for row in rows])
    likeness = torch.nn.functional.normalize(made, dim=1) @ torch.nn.functional.normalize(truth, dim=1).T
    assert likeness.argmax(1).tolist() == [0, 1, 2, 3]
    assert (made[:2].norm(dim=1) / truth[:2].norm(dim=1) - 1).abs().max() < 0.5


def test_words_of_classes_and_instances_are_learned_beside_those_of_photos(aligned, tmp_path):
    model, images, *_ = aligned
    grown = model.with_words(["goldfish", "sofa"])
    masks = np.zeros((12, 64, 64), np.uint8)
    masks[:, 12:52, 12:52] = 255
    photos = PackedPhotos(tuple(map(str, range(12))), images, masks)
    kinds = [Nouns((name,), (), (), frozenset([name])) for name in KINDS]
    sofa = Nouns(("sofa",), (), (), frozenset(["sofa"]))
    rng = np.random.default_rng(3)
    stripes = np.repeat(rng.integers(0, 255, (1, 64, 3)), 64, 0).astype(np.uint8)
    others = [InstancePhoto("one", stripes, (masks[:1] > 0), (sofa,))]
    classes = {1: Nouns(("goldfish",), (), (), frozenset(["goldfish"]))}
    before = grown.match_words.weight.clone()
    align(
        grown,
        photos,
        [kinds[row % 3] for row in range(12)],
        tmp_path,
        0,
        torch.device("cpu"),
        steps=60,
        batch_size=24,
        others=others,
        classes=classes,
    )
    row = grown.word_list.number("goldfish")
    assert not torch.equal(grown.match_words.weight[row], before[row])
    words = torch.tensor(grown.word_list.encode(["the sofa", "the dog", "the bus"], 16))
    with torch.no_grad():
        meanings = grown.encode(normalise(torch.from_numpy(stripes)[None])).meanings.mean((2, 3))
        assert int((meanings @ grown.meaning(words).T).argmax(1)) == 0
