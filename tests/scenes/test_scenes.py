"""Scenes composed of drawn photos: exact masks, true expressions, the same bytes for any workers."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from drawn_data import real_data
from saliency_r1.cli import main
from saliency_r1.cue_limits import COLOURS as ALL_COLOURS
from saliency_r1.data.duts import load_duts, load_synsets, split
from saliency_r1.data.groups import read_groups
from saliency_r1.data.layouts import load_instances
from saliency_r1.data.mask_files import load_mask
from saliency_r1.data.samples import Synset
from saliency_r1.data.true_instances import decode
from saliency_r1.errors import SaliencyError
from saliency_r1.language.expressions import Nouns, Region
from saliency_r1.language.naming import NameBook
from saliency_r1.nano.words import WordList
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import Mix, ReferringPhotos
from saliency_r1.scenes.scene_expressions import extra_words, refer, referring
from saliency_r1.scenes.scene_set import SceneSet, write_scenes
from saliency_r1.scenes.scenes import (
    LEAST_AREA,
    Scene,
    SceneObject,
    compose_group,
    compose_scene,
    reading_order,
    scene_number,
)
from saliency_r1.wording import ORDINALS

SIZE = 64
SYNSETS = [
    Synset("n1", "dog", ("hound",), ("canine", "animal")),
    Synset("n2", "bus", ("coach",), ("vehicle",)),
    Synset("n3", "apple", (), ("fruit",)),
    Synset("n4", "chair", ("seat",), ("furniture",)),
]
HUES = [(210, 40, 40), (40, 40, 210), (40, 190, 50), (230, 200, 40)]
COLOURS = ["red", "blue", "green", "yellow"]


def drawn_photo(kind, seed, ground=(120, 120, 120)):
    """A grey photo with one disc of the kind's colour, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.clip(np.array(ground) + rng.normal(0, 5, (SIZE, SIZE, 1)), 0, 255) + np.zeros(3)
    radius = rng.uniform(9, 15)
    centre = rng.uniform(18, SIZE - 18, 2)
    disc = np.hypot(y - centre[0], x - centre[1]) < radius
    image[disc] = HUES[kind]
    return image.astype(np.uint8), disc.astype(np.uint8) * np.uint8(255)


@pytest.fixture(scope="module")
def source():
    pairs = [drawn_photo(number % 4, number) for number in range(40)]
    images, masks = (np.stack(parts) for parts in zip(*pairs, strict=True))
    names = tuple(f"p{number}" for number in range(40))
    kinds = [number % 4 for number in range(40)]
    photos = PackedPhotos(names, images, masks)
    return Foregrounds(photos, [SYNSETS[kind] for kind in kinds], [COLOURS[kind] for kind in kinds])


@pytest.fixture(scope="module")
def book():
    return NameBook(dict.fromkeys(SYNSETS, 20))


def test_masks_are_apart_and_hold_what_they_name(source):
    seen = Counter()
    for number in range(60):
        scene = scene_number(source, 3, number)
        assert scene.image.shape == (SIZE, SIZE, 3)
        assert scene.image.dtype == np.uint8
        seen[len(scene.objects)] += 1
        if scene.objects:
            assert np.sum([each.mask for each in scene.objects], axis=0).max() == 1
        for each in scene.objects:
            assert each.mask.mean() >= LEAST_AREA
            kind = SYNSETS.index(each.synset)
            mean = scene.image[each.mask].mean(0)
            far = [np.abs(mean - hue).sum() for hue in HUES]
            assert int(np.argmin(far)) == kind
            assert each.colour in (COLOURS[kind], None)
            assert each.source in source.photos.names
    assert set(seen) == set(range(7))


@pytest.mark.parametrize("count", [*range(7), 9])
def test_as_many_objects_as_asked_for(source, count):
    for seed in range(5):
        assert len(compose_scene(source, np.random.default_rng(seed), objects=count).objects) == count


def test_one_name_or_all_different(source):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        assert (
            len({each.synset for each in compose_scene(source, rng, objects=3, same_name=True).objects}) == 1
        )
        different = compose_scene(source, rng, objects=3, same_name=False).objects
        assert len({each.synset for each in different}) == len(different)


def test_too_many_objects_is_one_clear_line(source):
    with pytest.raises(SaliencyError, match="expected 0 to 9"):
        compose_scene(source, np.random.default_rng(0), objects=10)


def test_backgrounds_keep_no_object_of_their_own(source):
    for seed in range(20):
        image = compose_scene(source, np.random.default_rng(seed), objects=0).image.astype(int)
        assert (image.max(2) - image.min(2)).max() < 30


def test_a_scene_depends_on_seed_and_number_alone(source):
    for number in (9, 2, 5):
        one, two = scene_number(source, 1, number), scene_number(source, 1, number)
        assert (one.image == two.image).all()
        assert [each.source for each in one.objects] == [each.source for each in two.objects]
    assert any((scene_number(source, 2, n).image != scene_number(source, 1, n).image).any() for n in range(3))


def test_only_whole_single_objects_are_cut_out(source):
    images, masks = np.array(source.photos.images[:5]), np.zeros((5, SIZE, SIZE), np.uint8)
    masks[0, 20:40, 20:40] = 255  # one object
    masks[1, 4:20, 4:20] = masks[1, 40:60, 40:60] = 255  # two
    masks[2, 20:24, 20:24] = 255  # tiny
    masks[3, :, 10:40] = 255  # cut at opposite sides
    masks[4, 2:62, 2:62] = 255  # nearly everything
    photos = PackedPhotos(tuple("abcde"), images, masks)
    assert Foregrounds(photos, [SYNSETS[0]] * 5, [None] * 5).rows.tolist() == [0]
    with pytest.raises(SaliencyError, match="none of 1 photos holds one whole object"):
        Foregrounds(PackedPhotos(("b",), images[1:2], masks[1:2]), [None], [None])


def test_what_a_photo_cuts_off_stands_at_that_side(source):
    images, masks = np.array(source.photos.images[:4]), np.array(source.photos.masks[:4])
    masks[0] = 0
    masks[0, 40:, 20:44] = 255
    photos = PackedPhotos(tuple("abcd"), images, masks)
    cut = Foregrounds(photos, [SYNSETS[0], None, None, None], [None] * 4)
    for seed in range(10):
        scene = compose_scene(cut, np.random.default_rng(seed), objects=1)
        if scene.objects[0].source == "a":
            assert scene.objects[0].mask[-1].sum() > 5


def test_true_shapes_come_back(source):
    photos = source.photos
    wide = Foregrounds(photos, source.synsets, source.colours, [2.0] * len(photos))
    for seed in range(6):
        mask = compose_scene(wide, np.random.default_rng(seed), objects=1).objects[0].mask
        assert 1.6 < mask.any(0).sum() / mask.any(1).sum() < 2.5


def square(y, x, side=8):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_reading_order_goes_by_bands():
    masks = [square(40, 50), square(4, 40), square(8, 4), square(44, 2), square(24, 30)]
    assert reading_order(masks) == [2, 1, 4, 3, 0]
    assert reading_order([]) == []


@pytest.mark.parametrize("size", [2, 8, 12])
def test_a_group_shares_one_name_alone_and_is_outdone_in_each_scene(source, size):
    scenes, synset = compose_group(source, np.random.default_rng(size), size)
    assert len(scenes) == size
    common = set.intersection(*({each.synset for each in scene.objects} for scene in scenes))
    assert common == {synset}
    for scene in scenes:
        own, other = sorted(scene.objects, key=lambda each: each.synset != synset)
        assert other.mask.sum() > 1.5 * own.mask.sum()
        far = [np.hypot(*(np.argwhere(each.mask).mean(0) - SIZE / 2)) for each in (own, other)]
        assert far[1] < far[0]


def test_a_group_without_distractors_holds_the_shared_object_alone(source):
    scenes, synset = compose_group(source, np.random.default_rng(0), 4, distractors=False)
    assert [[each.synset for each in scene.objects] for scene in scenes] == [[synset]] * 4


ORDER = re.compile(rf"the ({'|'.join(ORDINALS)}) (\w+) from the (left|right|top|bottom)")
SUPERLATIVE = re.compile(r"the (leftmost|rightmost|topmost|bottommost|largest|biggest|smallest) (\w+)")


def objects_called(noun, scene):
    if noun in ("object", "thing", "item", "xxx"):
        return list(range(len(scene.objects)))
    return [
        number
        for number, each in enumerate(scene.objects)
        if noun in (each.synset.name, *each.synset.synonyms, *each.synset.hypernyms)
    ]


def test_order_and_superlatives_are_true_of_exactly_their_object(source, book):
    read = Counter()
    for number in range(80):
        scene = scene_number(source, 4, number)
        centres = [np.argwhere(each.mask).mean(0) for each in scene.objects]
        areas = [each.mask.sum() for each in scene.objects]
        for each in referring(scene, np.random.default_rng(number), book):
            if match := ORDER.fullmatch(each.text):
                axis = 1 if match[3] in ("left", "right") else 0
                found = sorted(objects_called(match[2], scene), key=lambda n: centres[n][axis])
                found = found[::-1] if match[3] in ("right", "bottom") else found
                assert (found[ORDINALS.index(match[1])],) == each.indices
                read["order"] += 1
            elif match := SUPERLATIVE.fullmatch(each.text):
                word, found = match[1], objects_called(match[2], scene)
                axis = 1 if word in ("leftmost", "rightmost") else 0
                values = areas if word[-4:] != "most" else [centre[axis] for centre in centres]
                best = min if word in ("leftmost", "topmost", "smallest") else max
                assert (best(found, key=lambda n: values[n]),) == each.indices
                read["superlative"] += 1
    assert min(read.values()) > 50


def test_names_colours_and_what_is_not_there(source, book):
    kinds = Counter()
    for number in range(80):
        scene = scene_number(source, 5, number)
        found = referring(scene, np.random.default_rng(number), book)
        assert len({each.text for each in found}) == len(found)
        for each in found:
            kinds[each.kind] += 1
            words = each.text.split()
            nouns = [word for word in words if word in ("dog", "bus", "apple", "chair")]
            if each.kind == "name" or (each.kind == "negative" and nouns):
                called = objects_called(nouns[0], scene)
                hues = [word for word in words if word in ALL_COLOURS]
                fits = [n for n in called if not hues or scene.objects[n].colour == hues[0]]
                assert tuple(fits) == each.indices
            if each.kind == "colour":
                hue = next(word for word in words if word in ALL_COLOURS)
                fits = [n for n in objects_called(words[-1], scene) if scene.objects[n].colour == hue]
                assert tuple(fits) == each.indices
            if each.kind == "all" and nouns:
                assert tuple(objects_called(nouns[0], scene)) == each.indices
    assert {"name", "synonym", "hypernym", "colour", "place", "order", "size", "all", "negative"} == set(
        kinds
    )


def test_beside_an_unnamed_object_nothing_is_named(book):
    objects = (
        SceneObject(square(10, 4), SYNSETS[0], None, "a"),
        SceneObject(square(12, 40), None, None, "b"),
    )
    scene = Scene(np.zeros((SIZE, SIZE, 3), np.uint8), objects)
    for seed in range(10):
        for each in referring(scene, np.random.default_rng(seed), book):
            assert not {"dog", "hound", "animal", "canine", "bus"} & set(each.text.split())


def test_an_empty_scene_has_nothing_that_stands_out(source, book):
    scene = compose_scene(source, np.random.default_rng(0), objects=0)
    found = referring(scene, np.random.default_rng(0), book)
    assert found
    assert all(each.indices == () and each.kind == "negative" for each in found)


def test_on_a_photo_that_shows_more_every_expression_names_its_object(book):
    nouns = [Nouns.of(synset, book) for synset in (SYNSETS[0], SYNSETS[0], SYNSETS[1])]
    regions = [Region(square(10, x), each) for x, each in zip((2, 20, 44), nouns, strict=True)]
    found = refer(regions, np.random.default_rng(1), nouns, closed=False)
    called = {"dog", "dogs", "hound", "hounds", "canine", "canines", "animal", "animals"}
    called |= {"bus", "coach", "vehicle"}
    assert [each.text for each in found if not called & set(each.text.split())] == []
    assert {each.indices for each in found} == {(0,), (1,), (2,), (0, 1)}


def test_the_words_of_expressions_are_in_the_vocabulary(source, book):
    from saliency_r1.language.expressions import vocabulary

    known = WordList([*vocabulary(Nouns.of(synset, book) for synset in SYNSETS), *extra_words()])
    for number in range(30):
        for each in referring(scene_number(source, 6, number), np.random.default_rng(number), book):
            for word in re.findall(r"[a-z]+", each.text):
                assert word == "xxx" or known.number(word) > 1, each.text


def test_training_samples_of_scenes_have_the_masks_of_their_words(source, book):
    nouns = [Nouns.of(synset, book) for synset in source.synsets]
    photos = ReferringPhotos(
        source.photos, nouns, source.colours, 3, Mix(scenes=1.0, composed=0.0), (source, book)
    )
    sizes = set()
    for number in range(40):
        sample, again = photos[number], photos[number]
        assert sample.expressions == again.expressions
        assert (sample.image == again.image).all()
        assert (sample.masks == again.masks).all()
        assert sample.masks.shape == (2, SIZE, SIZE)
        for text, mask in zip(sample.expressions, sample.masks, strict=True):
            if text in ("the dog", "dog"):
                red = sample.image[mask > 0].astype(int)
                sizes.add(len(red) > 0)
                assert len(red) == 0 or red[:, 0].mean() > red[:, 1:].mean() + 40
    assert True in sizes


def test_a_share_of_scenes_without_scenes_is_one_clear_line(source):
    with pytest.raises(SaliencyError, match=r"a mix of 0\.5 scenes"):
        ReferringPhotos(source.photos, [None] * 40, source.colours, 0, Mix(scenes=0.5))


@pytest.fixture(scope="module")
def drawn_duts(tmp_path_factory):
    """560 photos in DUTS-TR's layout: the validation split's 500 on violet ground, the others on grey."""
    root = tmp_path_factory.mktemp("duts")
    images, masks = (root / "DUTS-TR" / f"DUTS-TR-{kind}" for kind in ("Image", "Mask"))
    images.mkdir(parents=True)
    masks.mkdir()
    names = [f"n{number % 4 + 1}_{number}" for number in range(560)]
    for name in names:
        Image.new("L", (SIZE, SIZE)).save(masks / f"{name}.png")
        Image.new("L", (SIZE, SIZE)).save(images / f"{name}.png")
    held_out = {sample.name for sample in split(load_duts(root))[1]}
    for number, name in enumerate(names):
        ground = (140, 60, 200) if name in held_out else (120, 120, 120)
        image, mask = drawn_photo(number % 4, number, ground)
        Image.fromarray(image).save(images / f"{name}.png")
        Image.fromarray(mask).save(masks / f"{name}.png")
    rows = {
        each.id: {"name": each.name, "synonyms": each.synonyms, "hypernyms": each.hypernyms}
        for each in SYNSETS
    }
    (root / "synsets.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_bytes_for_one_worker_and_two(drawn_duts, cache, tmp_path):
    which = SceneSet(str(drawn_duts), "train", 4, cache, SIZE)
    for workers in (1, 2):
        assert sorted(write_scenes(which, 7, tmp_path / f"of{workers}", workers)) == list(range(7))
    one, two = files_of(tmp_path / "of1"), files_of(tmp_path / "of2")
    assert len(one) == 11
    assert one == two
    other = list(write_scenes(replace(which, seed=5), 7, tmp_path / "other", 0))
    assert len(other) == 7
    assert files_of(tmp_path / "other") != one


def violet_share(path):
    image = np.asarray(Image.open(path)).astype(int)
    return ((image[..., 2] > image[..., 1] + 90) & (image[..., 0] > image[..., 1] + 45)).mean()


def test_training_scenes_use_no_validation_photo(drawn_duts, cache, tmp_path):
    train, validation = split(load_duts(drawn_duts))
    assert min(violet_share(sample.image) for sample in validation[:20]) > 0.2
    list(write_scenes(SceneSet(str(drawn_duts), "train", 0, cache, SIZE), 30, tmp_path, 0))
    annotations = json.loads((tmp_path / "instances.json").read_text())["annotations"]
    assert annotations
    assert {each["source"] for each in annotations} <= {sample.name for sample in train}
    known = {sample.name: sample.synset for sample in train}
    assert load_synsets(tmp_path) == {each["synset"]: known[each["source"]] for each in annotations}
    assert max(violet_share(path) for path in (tmp_path / "images").iterdir()) < 0.02


def test_the_command_writes_a_set_that_evaluation_reads(drawn_duts, cache, tmp_path, capsys):
    out = tmp_path / "scenes"
    command = ["data", "scenes", "--data", str(drawn_duts), "--split", "train", "--count", "5", "--seed", "1"]
    assert main([*command, "--out", str(out), "--workers", "0", "--cache", cache]) == 0
    assert "5 scenes of the train split" in capsys.readouterr().out
    images = list(load_instances(out))
    assert len(images) == 5
    lines = [json.loads(line) for line in (out / "expressions.jsonl").read_text().splitlines()]
    for image in images:
        masks = [decode(each.mask) for each in image.instances]
        assert reading_order(masks) == list(range(len(masks)))
        mine = [line for line in lines if line["image"] == image.image.name]
        assert mine
        assert not any("xxx" in line["text"] for line in mine)
        for line in mine:
            assert all(0 <= number < len(masks) for number in line["instances"])
            assert line["instance"] == (line["instances"][0] if len(line["instances"]) == 1 else None)
    assert Image.open(out / "sheet.jpg").width > 256


def test_the_command_writes_groups_that_prompts_read(drawn_duts, cache, tmp_path, capsys):
    command = [
        "data",
        "scenes",
        "--data",
        str(drawn_duts),
        "--split",
        "train",
        "--count",
        "0",
        "--groups",
        "2",
    ]
    command += ["--group-size", "3", "--workers", "0", "--cache", cache]
    for out in ("first", "second"):
        assert main([*command, "--out", str(tmp_path / out)]) == 0
    assert "2 groups of 3 of the train split" in capsys.readouterr().out
    assert not (tmp_path / "first" / "instances.json").exists()
    samples = list(read_groups(tmp_path / "first" / "groups"))
    assert len(samples) == 6
    for sample in samples:
        assert 0 < load_mask(sample.mask).mean() < 0.5
        again = tmp_path / "second" / sample.mask.relative_to(tmp_path / "first")
        assert again.read_bytes() == sample.mask.read_bytes()


def test_no_scene_and_no_group_is_one_clear_line(drawn_duts, capsys):
    assert main(["data", "scenes", "--data", str(drawn_duts), "--count", "0"]) == 2
    assert "--count and --groups are both 0" in capsys.readouterr().err


def test_no_such_split_is_one_clear_line(drawn_duts, tmp_path):
    with pytest.raises(SaliencyError, match="split 'test': expected train or validation"):
        list(write_scenes(SceneSet(str(drawn_duts), "test"), 1, tmp_path, 0))


def test_real_foregrounds(tmp_path):
    samples = split(load_duts(real_data("DUTS")))[1][:60]
    source = Foregrounds.open(samples, tmp_path, 128)
    book = NameBook.from_samples(samples, minimum=1)
    counts = set()
    for number in range(12):
        scene = scene_number(source, 0, number)
        counts.add(len(scene.objects))
        assert all(each.mask.mean() >= LEAST_AREA for each in scene.objects)
        assert referring(scene, np.random.default_rng(number), book)
    assert len(counts) > 2
