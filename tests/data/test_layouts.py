"""Readers on the layouts and names that are met in the wild, and masks of every mode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_data import SIZE, draw_groups, draw_pairs, save, scene
from saliency_r1.cli import main
from saliency_r1.data.benchmarks import BENCHMARKS, find_benchmark
from saliency_r1.data.coco_json import read_coco
from saliency_r1.data.groups import read_groups
from saliency_r1.data.instance_png import read_instance_pngs
from saliency_r1.data.layouts import load_instances, load_maps, load_splits, task_of
from saliency_r1.data.mask_files import load_grey, load_mask
from saliency_r1.data.pairs import read_pairs
from saliency_r1.data.prompt_examples import read_prompts
from saliency_r1.data.true_instances import decode, encode
from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.tasks import Task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    "folders",
    [
        ("images", "mask"),
        ("image", "masks"),
        ("Image", "Mask"),
        ("Images", "Masks"),
        ("Imgs", "GT"),
        ("im", "gt"),
        ("RGB", "gts"),
        ("images", "ground_truth_mask"),
        ("DUTS-TE-Image", "DUTS-TE-Mask"),
        ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    ],
)
def test_pairs_by_every_name(folders: tuple[str, str], tmp_path: Path) -> None:
    names = draw_pairs(tmp_path / "set", 3, folders=folders)
    (tmp_path / "set" / folders[0] / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "set" / folders[1] / ".DS_Store").write_bytes(b"x")
    for root in (tmp_path / "set", tmp_path):  # the folder itself, and the one above
        samples = list(read_pairs(root))
        assert [sample.name for sample in samples] == names
        assert [sample.image.parent.name for sample in samples] == [folders[0]] * 3
        assert all(sample.mask and sample.mask.parent.name == folders[1] for sample in samples)


def test_pairs_that_are_not_pairs(tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="no such folder"):
        read_pairs(tmp_path / "none")
    with pytest.raises(SaliencyError, match="expected a folder of pictures"):
        read_pairs(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(SaliencyError, match="empty, expected photos"):
        read_pairs(tmp_path)
    draw_pairs(tmp_path, 15)
    photo, mask = scene(99)
    save(photo, tmp_path / "images" / "more.jpg")
    with pytest.raises(SaliencyError, match=r"1 photos in .* have no mask in .*: more;"):
        read_pairs(tmp_path)
    save(mask, tmp_path / "masks" / "more.png")
    for number in range(12):
        save(mask, tmp_path / "masks" / f"x{number:02d}.png")
    with pytest.raises(SaliencyError, match=r"12 masks in .* have no photo.*x09 and 2 more"):
        read_pairs(tmp_path)


def test_two_masks_for_one_stem(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 2)
    save(scene(0)[1], tmp_path / "masks" / "0000.bmp")
    with pytest.raises(SaliencyError, match=r"two masks for one stem, 0000.bmp and 0000.png; keep one"):
        read_pairs(tmp_path)


def test_folders_that_could_each_be_meant(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "a", 2)
    draw_pairs(tmp_path / "b", 2)
    with pytest.raises(SaliencyError, match=r"holds several data sets, give one of them: .*a, .*b"):
        read_pairs(tmp_path)
    draw_pairs(tmp_path / "a", 2, folders=("Imgs", "GT"))
    with pytest.raises(SaliencyError, match="Imgs, images could each be meant"):
        read_pairs(tmp_path / "a")


GROUPS = {"cat": 2, "dog": 3}


@pytest.mark.parametrize(
    ("images", "masks", "root"),
    [
        ("images/CoCA", "gts/CoCA", ""),
        ("images/CoCA", "gts/CoCA", "CoCA"),
        ("CoCA/image", "CoCA/gt", "CoCA"),
        ("CoCA/images", "CoCA/masks", "CoCA"),
        ("CoCA/image", "CoCA/binary", "CoCA"),
    ],
)
def test_groups_in_every_layout(images: str, masks: str, root: str, tmp_path: Path) -> None:
    draw_groups(tmp_path / images, tmp_path / masks, GROUPS)
    samples = list(read_groups(tmp_path / root))
    assert [sample.name for sample in samples] == ["cat/00", "cat/01", "dog/00", "dog/01", "dog/02"]
    assert samples[2].image == tmp_path / images / "dog" / "00.jpg"
    assert samples[2].mask == tmp_path / masks / "dog" / "00.png"
    assert task_of(tmp_path / root) is Task.COSOD


def test_one_of_several_sets_of_groups(tmp_path: Path) -> None:
    for name in ("CoCA", "CoSal2015"):
        draw_groups(tmp_path / "images" / name, tmp_path / "gts" / name, GROUPS)
    assert len(list(read_groups(tmp_path / "CoSal2015"))) == 5
    with pytest.raises(SaliencyError, match=r"several sets, give one of them: .*CoCA, .*CoSal2015"):
        read_groups(tmp_path)
    with pytest.raises(SaliencyError, match="no set 'CoSOD3k'"):
        read_groups(tmp_path / "CoSOD3k")


def test_groups_that_differ(tmp_path: Path) -> None:
    draw_groups(tmp_path / "images", tmp_path / "masks", GROUPS)
    save(scene(0)[0], tmp_path / "images" / "owl" / "00.jpg")
    with pytest.raises(SaliencyError, match=r"groups in .* differ: owl"):
        read_groups(tmp_path)


def instance_scene() -> np.ndarray:
    """Two instances on black, int (H, W)."""
    values = np.zeros(SIZE[::-1], np.uint8)
    values[10:30, 10:40] = 1
    values[40:60, 50:80] = 2
    return values


def coco_content(**changes: object) -> dict[str, object]:
    values = instance_scene()
    packed = encode(values == 2)
    height, width = values.shape
    return {
        "images": [{"id": 5, "file_name": "0001.jpg", "height": height, "width": width}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]},
            {
                "id": 2,
                "image_id": 5,
                "category_id": 4,
                "segmentation": packed | {"counts": packed["counts"].decode()},
            },
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    } | changes


@pytest.mark.parametrize("place", ["instances.json", "annotations/test.json"])
def test_coco_json_of_several_categories(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco_content()))
    save(scene(0)[0], tmp_path / "images" / "0001.jpg")
    for root in (tmp_path, path):
        (image,) = load_instances(root)
        assert (image.key, image.name, image.image) == (5, "0001", tmp_path / "images" / "0001.jpg")
        values = instance_scene()
        for number, one in enumerate(image.instances, 1):
            np.testing.assert_array_equal(decode(one.mask), values == number)
        assert [one.category for one in image.instances] == ["cat", "dog"]
    assert task_of(tmp_path) is Task.SIS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "not json"),
        ("[]", "not COCO, expected an object with the lists `images` and `annotations`"),
        ('{"images": [], "annotations": []}', "`images` is empty"),
        (json.dumps(coco_content(annotations=[{"image_id": 9}])), "1 unknown image ids: 9"),
        (json.dumps(coco_content(images=[{"id": 5}])), "without id, file_name, height and width"),
        (
            json.dumps(coco_content(images=coco_content()["images"] * 2)),  # type: ignore[operator]
            "image ids used twice: 5",
        ),
        (
            json.dumps(
                coco_content(
                    annotations=[{"id": 1, "image_id": 5, "segmentation": {"size": [9, 9], "counts": "0"}}]
                )
            ),
            r"annotation 1 of image 5 \(0001.jpg\): run lengths of size \[9, 9\], expected the photo's",
        ),
    ],
)
def test_json_that_is_not_coco(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(SaliencyError, match=message) as caught:
        list(read_coco(path))
    assert "truth.json" in str(caught.value)


def test_several_json_files(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        SaliencyError, match=r"several json files, give one of them as the data: a.json, b.json"
    ):
        load_instances(tmp_path)


@pytest.mark.parametrize("kind", ["RGB", "P", "L"])
@pytest.mark.parametrize("folders", [("images", "instances"), ("Imgs", "Instance"), ("image", "gt")])
def test_instances_by_colour(kind: str, folders: tuple[str, str], tmp_path: Path) -> None:
    values = instance_scene()
    picture = Image.fromarray(values)
    if kind == "P":
        picture.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 90])
    if kind == "RGB":
        picture = Image.fromarray(np.array([[0, 0, 0], [200, 0, 0], [0, 0, 90]], np.uint8)[values])
    save(scene(0)[0], tmp_path / folders[0] / "0001.jpg")
    save(picture, tmp_path / folders[1] / "0001.png")
    (image,) = read_instance_pngs(tmp_path)
    masks = sorted((decode(one.mask) for one in image.instances), key=lambda mask: int(mask.argmax()))
    np.testing.assert_array_equal(masks, [values == 1, values == 2])


def test_soft_edges_are_no_instances(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
    save(scene(0)[0], tmp_path / "images" / "0001.jpg")
    save(Image.fromarray(noise), tmp_path / "instances" / "0001.png")
    with pytest.raises(SaliencyError, match="colours, expected one an instance"):
        list(read_instance_pngs(tmp_path))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_mode(mode: str, tmp_path: Path) -> None:
    _, mask = scene(1)
    expected = np.asarray(mask) > 127
    picture = (
        Image.fromarray((np.asarray(mask).astype(np.uint16)) * 257) if mode == "I;16" else mask.convert(mode)
    )
    if mode in ("RGBA", "LA"):
        picture.putalpha(0)  # alpha says nothing in a mask
    save(picture, tmp_path / "mask.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), expected)


def test_masks_are_cut_above_127(tmp_path: Path) -> None:
    save(Image.fromarray(np.array([[0, 126, 127, 128, 255]], np.uint8)), tmp_path / "mask.png")
    assert load_mask(tmp_path / "mask.png").tolist() == [[False, False, False, True, True]]
    assert load_grey(tmp_path / "mask.png").tolist() == [[0, 126, 127, 128, 255]]


def test_a_broken_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"mask.png: cannot be read as a mask"):
        load_mask(tmp_path / "mask.png")


def test_benchmarks_are_found_by_their_folders() -> None:
    for benchmark in BENCHMARKS:
        assert find_benchmark(benchmark.name) is benchmark
        assert find_benchmark(benchmark.name.lower().replace("-", "_")) is benchmark
        assert benchmark.source.startswith("http")
        assert benchmark.terms
    assert find_benchmark("holiday") is None


@pytest.mark.parametrize(
    ("name", "photos", "groups"),
    [
        ("DUTS-TE", 5019, None),
        ("DUT-OMRON", 5168, None),
        ("ECSSD", 1000, None),
        ("HKU-IS", 4447, None),
        ("PASCAL-S", 850, None),
        ("SOD", 300, None),
        ("CoCA", 1295, 80),
        ("CoSal2015", 2015, 50),
        ("CoSOD3k", 3316, 160),
        ("ILSO-1K", 1000, None),
        ("SOC", 6000, None),
        ("SIS10K", 10301, None),
    ],
)
def test_what_benchmarks_are_expected_to_hold(name: str, photos: int, groups: int | None) -> None:
    benchmark = find_benchmark(name)
    assert benchmark is not None
    assert benchmark.part_of(photos) is not None
    assert benchmark.part_of(photos % 1000 - 1) is None
    assert benchmark.groups == groups


def test_splits_are_of_sod_alone(tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match="there are train and validation, for sod"):
        load_maps(tmp_path, Task.COSOD, "validation")
    with pytest.raises(SaliencyError, match="expected a folder of pictures"):
        load_maps(tmp_path, Task.SOD, "validation")


def test_a_tenth_of_a_folder_of_pairs_is_held_out_whatever_the_order(tmp_path: Path) -> None:
    names = draw_pairs(tmp_path, 21)
    train, validation = load_splits(tmp_path)
    assert (len(train), len(validation)) == (18, 3)
    assert sorted(sample.name for sample in train + validation) == names
    assert load_maps(tmp_path, Task.SOD, "validation") == validation
    # Photos that come later move none of the others from one side to the other but at the edge.
    draw_pairs(tmp_path, 23)
    assert {sample.name for sample in load_splits(tmp_path)[1]} & {sample.name for sample in validation}


def test_questions_are_of_the_split_that_is_asked_for(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 12)
    train, validation = load_splits(tmp_path)
    for arguments, samples in (
        (["--split", "train"], train),
        (["--split", "validation"], validation),
        ([], train + validation),
    ):
        out = tmp_path / "questions.jsonl"
        assert main(["data", "prompts", str(out), "--sod", str(tmp_path), *arguments]) == 0
        assert {prompt.name for prompt in read_prompts(out)} == {sample.name for sample in samples}


def test_names_of_a_folder_of_pairs(tmp_path: Path) -> None:
    for name in ("mug_1", "mug_2", "kiwi_1"):
        save(scene(1)[0], tmp_path / "images" / f"{name}.jpg")
        save(scene(1)[1], tmp_path / "masks" / f"{name}.png")
    content = {"mug": {"name": "mug", "synonyms": ["cup"], "hypernyms": []}}
    (tmp_path / "synsets.json").write_text(json.dumps(content))
    train, validation = load_splits(tmp_path)
    found = {sample.name: sample.synset and sample.synset.name for sample in train + validation}
    assert found == {"mug_1": "mug", "mug_2": "mug", "kiwi_1": None}


def test_one_pair_cannot_be_split(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 1)
    with pytest.raises(SaliencyError, match="one photo with a mask: expected at least two"):
        load_splits(tmp_path)
