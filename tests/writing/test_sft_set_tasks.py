"""Fine-tuning sets of instances and groups: true, filtered, the same after a kill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import label

from saliency_r1.data.instance_png import load_instances
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.language.naming import NameBook
from saliency_r1.language.tree_names import tree_of
from saliency_r1.response import parse_strict
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import select
from saliency_r1.scenes.scenes import scene_number
from saliency_r1.tasks import Task
from saliency_r1.writing.sft_groups import composed_group_jobs, group_jobs
from saliency_r1.writing.sft_instances import crowd_jobs, photo_jobs, scene_jobs, whole_scene_jobs
from saliency_r1.writing.sft_set import Job, SFTMaker, SFTSetting, read_examples, write_set
from saliency_r1.writing.sft_sources import Sources, split_jobs
from stubs import SegmenterStub

HUES = {"strawberry": "red", "jay": "blue", "lemon": "yellow"}
SYNSETS = (
    Synset("n1", "strawberry", (), ("berry", "edible fruit", "food")),
    Synset("n2", "jay", (), ("corvine bird", "bird", "animal")),
    Synset("n3", "lemon", (), ("citrus", "edible fruit", "food")),
)
NAMES = NameBook(dict.fromkeys(SYNSETS, 10))


class HueSegmenter(SegmenterStub):
    """Finds blobs by the hue of their name; of an expression it reads the noun and one side."""

    name = "hue"

    def find(self, image: np.ndarray, expression: str) -> np.ndarray:
        words = set(expression.split())
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        hues = {
            "strawberry": (red > green + 60) & (red > blue + 60),
            "jay": (blue > red + 60) & (blue > green + 40),
            "lemon": (red > blue + 60) & (green > blue + 60) & (abs(red - green) < 60),
        }
        hues["bird"] = hues["jay"]
        hues["fruit"] = hues["strawberry"] | hues["lemon"]
        hues["object"] = hues["fruit"] | hues["jay"]
        found = next((hues[noun] for noun in hues if noun in words), np.zeros_like(hues["jay"]))
        blobs, count = label(found, np.ones((3, 3)))
        centres = [np.argwhere(blobs == number + 1).mean(0) for number in range(count)]
        large = [number for number in range(count) if (blobs == number + 1).sum() > 20]
        for word, axis, last in (("left", 1, 0), ("right", 1, -1), ("top", 0, 0), ("bottom", 0, -1)):
            if word in words and large:
                chosen = sorted(large, key=lambda number: centres[number][axis])[last]
                return blobs == chosen + 1
        return found


def draw(folder: Path, count: int = 30) -> list[Sample]:
    """Photos of one coloured disc on green, of three names in turn."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(count):
        synset = SYNSETS[number % 3]
        x, y = (int(value) for value in rng.integers(4, 60, 2))
        image, mask = Image.new("RGB", (128, 128), "green"), Image.new("L", (128, 128))
        for picture, fill in ((image, HUES[synset.name]), (mask, 255)):
            ImageDraw.Draw(picture).ellipse((x, y, x + 50, y + 56), fill=fill)
        name = f"{synset.id}_{number}"
        image.save(folder / f"{name}.png")
        mask.save(folder / f"{name}-mask.png")
        samples.append(Sample(name, folder / f"{name}.png", folder / f"{name}-mask.png", synset))
    return samples


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Foregrounds:
    folder = tmp_path_factory.mktemp("foregrounds")
    return Foregrounds.open(draw(folder / "photos"), folder / "packed", size=96)


def draw_coco(folder: Path) -> Path:
    """Ten photos of a red disc on the left and a blue one on the right, the blue one listed first."""
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(10):
        image = Image.new("RGB", (120, 80), "green")
        for name, box in (("blue", (75, 20 + number, 105, 50 + number)), ("red", (10, 15, 45, 50))):
            mask = Image.new("L", image.size)
            for picture, fill in ((image, name), (mask, 255)):
                ImageDraw.Draw(picture).ellipse(box, fill=fill)
            runs = encode(np.asarray(mask) > 0)
            runs["counts"] = runs["counts"].decode()
            annotation = {"id": len(annotations), "image_id": number, "category_id": 1, "segmentation": runs}
            annotations.append(annotation)
        image.save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 80})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def with_hues(root: Path, setting: SFTSetting) -> SFTMaker:
    return SFTMaker(HueSegmenter(), root, NAMES, setting)


def write(jobs: list[Job], out: Path, setting: SFTSetting, **options: object) -> dict:
    return write_set(jobs, out, with_hues(out.parent, setting).header, **options)


def test_scenes_are_written_with_an_expression_for_each_instance(source: Foregrounds, tmp_path: Path) -> None:
    setting = SFTSetting(variants=2, fast_share=0.3)
    jobs = scene_jobs(source, range(24), tmp_path / "scenes", with_hues(tmp_path, setting))
    counts = write(jobs, tmp_path / "a.jsonl", setting)[Task.SIS]
    examples = read_examples(tmp_path / "a.jsonl")
    assert counts.examples == len(examples)
    assert counts.photos == 24
    assert counts.outcomes.total() == 48
    sizes = set()
    for example in examples:
        scene = scene_number(source, 0, int(example.name.split()[1]))
        response = parse_strict(example.response, Task.SIS)
        assert len(response.expressions) == len(set(response.expressions)) == len(scene.objects)
        assert example.prompt == Task.SIS.spec.prompt(reasoning=bool(response.reasoning))
        assert Image.open(tmp_path / example.images[0]).size == (96, 96)
        found = HueSegmenter().segment(
            HueSegmenter().encode(Image.open(tmp_path / example.images[0])),
            list(response.expressions) or ["-"],
        )
        for mask, each in zip(found.probabilities > 0.5, scene.objects, strict=False):
            assert (mask & each.mask).sum() >= 0.7 * (mask | each.mask).sum()
        sizes.add(len(scene.objects))
    assert len(sizes) >= 3
    assert {path.name for path in (tmp_path / "scenes").iterdir()} == {
        Path(example.images[0]).with_suffix(ending).name
        for example in examples
        for ending in (".webp", ".png")
    }


def test_of_scenes_of_many_objects_six_are_listed(source: Foregrounds, tmp_path: Path) -> None:
    setting = SFTSetting(variants=1, fast_share=0.0, minimum_iou=0.0)
    jobs = crowd_jobs(source, range(40, 64), tmp_path / "scenes", with_hues(tmp_path, setting))
    write(jobs, tmp_path / "a.jsonl", setting)
    crowds = 0
    for example in read_examples(tmp_path / "a.jsonl"):
        response = parse_strict(example.response, Task.SIS)
        masks = load_instances((tmp_path / example.images[0]).with_suffix(".png"))
        assert len(response.expressions) == min(6, len(masks))
        assert ("more than six" in response.reasoning.lower()) == (len(masks) > 6)
        crowds += len(masks) > 6
    assert crowds >= 3


def test_photos_give_instances_in_reading_order_mirrored_too(tmp_path: Path) -> None:
    root = draw_coco(tmp_path / "coco")
    train, held_out = select(root, "train"), select(root, "validation")
    assert len(train) + len(held_out) == 10
    setting = SFTSetting(variants=2, fast_share=0)
    folder = tmp_path / "photos"
    write(photo_jobs(train, folder, with_hues(root, setting)), tmp_path / "a.jsonl", setting)
    examples = read_examples(tmp_path / "a.jsonl")
    assert {example.name for example in examples} == {photo.name for photo, _ in train}
    assert not any(example.mirrored for example in examples)
    for example in examples:
        (path,) = (Path(each) for each in example.images)
        assert path.parent == folder
        assert path.stem in (example.name, f"{example.name} mirrored")
        photo = Image.open(root / "images" / f"{example.name}.png")
        photo = ImageOps.mirror(photo) if "mirrored" in path.stem else photo
        # WebP with loss
        assert np.abs(np.asarray(Image.open(path), float) - np.asarray(photo, float)).mean() < 6
        left, right = load_instances(path.with_suffix(".png"))
        if np.nonzero(left)[1].mean() > np.nonzero(right)[1].mean():
            left, right = right, left
        found = HueSegmenter().segment(
            HueSegmenter().encode(Image.open(path)), parse_strict(example.response, Task.SIS).expressions
        )
        for mask, truth in zip(found.probabilities > 0.5, (left, right), strict=True):
            assert (mask & truth).sum() >= 0.7 * (mask | truth).sum()
    assert len({example.images for example in examples}) == 2 * len(train)


def test_of_whole_scenes_everything_is_asked_for(source: Foregrounds, tmp_path: Path) -> None:
    setting = SFTSetting(variants=2, fast_share=0.3)
    jobs = whole_scene_jobs(source, range(40, 64), tmp_path / "scenes", with_hues(tmp_path, setting))
    assert {job.name for job in jobs} == {f"scene {number}" for number in range(40, 64)}
    counts = write(jobs, tmp_path / "a.jsonl", setting)
    assert set(counts) == {Task.SOD}
    examples = read_examples(tmp_path / "a.jsonl")
    assert len(examples) >= 8
    for example in examples:
        scene = scene_number(source, 0, int(example.name.split()[1]))
        truth = np.logical_or.reduce([np.zeros((96, 96), bool), *(each.mask for each in scene.objects)])
        expressions = parse_strict(example.response, Task.SOD).expressions
        assert len(expressions) == bool(scene.objects)
        if not expressions:
            continue
        encoded = HueSegmenter().encode(Image.open(tmp_path / example.images[0]))
        found = HueSegmenter().segment(encoded, expressions).probabilities[0] > 0.5
        assert (found & truth).sum() >= 0.7 * (found | truth).sum()
        if len({each.synset for each in scene.objects}) > 1:
            assert "object" in expressions[0]
    pictures = {path.name for path in (tmp_path / "scenes").iterdir()}
    assert pictures == {Path(example.images[0]).name for example in examples}


def test_groups_share_one_name_in_three_to_six_images(source: Foregrounds, tmp_path: Path) -> None:
    samples = draw(tmp_path / "photos")
    setting = SFTSetting(variants=3, fast_share=0.2, minimum_group_iou=0.5)
    groups = {each.id: [sample for sample in samples if sample.synset == each] for each in SYNSETS}
    groups["few"] = samples[:2]
    maker = with_hues(tmp_path, setting)
    jobs = group_jobs(groups, 4, maker) + composed_group_jobs(source, 6, tmp_path / "groups", maker)
    assert len(jobs) == 3 + 6
    counts = write(jobs, tmp_path / "a.jsonl", setting)[Task.COSOD]
    examples = read_examples(tmp_path / "a.jsonl")
    assert counts.examples == len(examples) <= counts.outcomes.total() <= 4 * 3 + 6 * 2 * 3
    kinds = Counter(example.name.split()[0] for example in examples)
    assert kinds["group"] >= 8
    assert kinds["composed"] >= 3
    for example in examples:
        assert 3 <= len(set(example.images)) == len(example.images) <= 6
        (expression,) = parse_strict(example.response, Task.COSOD).expressions
        ious = []
        for path in example.images:
            image = Image.open(tmp_path / path)
            found = HueSegmenter().segment(HueSegmenter().encode(image), [expression]).probabilities[0]
            ious.append(found.mean())
            if example.name.startswith("group"):
                assert path.startswith(f"photos/{example.name.split()[1]}_")
        assert np.mean(ious) > 0.01
    assert {example.mirrored for example in examples if example.name.startswith("group")} == {True, False}


def test_a_killed_build_of_all_tasks_goes_on_to_the_same_file(source: Foregrounds, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def stop(jobs: list[Job]) -> Iterator[Job]:
        for number, job in enumerate(jobs):
            if number == 3:
                raise KilledError
            yield job

    setting = SFTSetting(variants=2)
    maker = with_hues(tmp_path, setting)
    jobs = scene_jobs(source, range(5), tmp_path / "scenes", maker)
    jobs += composed_group_jobs(source, 2, tmp_path / "groups", maker)
    whole = write(jobs, tmp_path / "whole.jsonl", setting, workers=2)
    pictures = {path: path.read_bytes() for path in tmp_path.rglob("*.webp")}
    with pytest.raises(KilledError):
        write(jobs, tmp_path / "cut.jsonl", setting, track=stop)
    assert not (tmp_path / "cut.jsonl").exists()
    assert write(jobs, tmp_path / "cut.jsonl", setting) == whole
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.webp")} == pictures
    with pytest.raises(SaliencyError, match="two jobs are called 'scene 0'"):
        write(jobs[:1] * 2, tmp_path / "b.jsonl", setting)


def test_each_split_is_made_of_its_own_photos(tmp_path: Path) -> None:
    samples = draw(tmp_path / "photos", 36)
    groups = {each.id: [sample.name for sample in samples if sample.synset == each] for each in SYNSETS}
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    coco = draw_coco(tmp_path / "coco")
    out, cache = tmp_path / "out", tmp_path / "cache"
    sources = Sources(tuple(Task), tmp_path, (coco,), 20, 8, 4, cache, out, tree_of(SYNSETS))
    jobs = {
        title: split_jobs(sources, title, part, with_hues(tmp_path, SFTSetting(variants=1)))
        for title, part in (("train", samples[:24]), ("validation", samples[24:]))
    }
    tasks = {title: Counter(job.task for job in made) for title, made in jobs.items()}
    photos = {title: len(select(coco, title)) for title in jobs}
    assert photos["train"] + photos["validation"] == 10
    assert tasks["train"] == {Task.SOD: 24 + 6, Task.SIS: photos["train"] + 20 + 2, Task.COSOD: 3 + 4}
    assert tasks["validation"] == {Task.SOD: 12, Task.SIS: photos["validation"] + 2, Task.COSOD: 3 + 1}
    seen: dict[str, set[str]] = {}
    for title, made in jobs.items():
        by_name = {job.name: job for job in made}
        real = [job for name, job in by_name.items() if not name.startswith(("scene", "composed"))]
        seen[title] = {path for job in real for example in job.make()[0] for path in example.images}
        by_name["scene 0"].make()
    assert seen["train"]
    assert seen["validation"]
    assert not seen["train"] & seen["validation"]
    assert {path.parent for path in out.rglob("*.webp")} <= {
        out / kind / title for kind in ("scenes", "photos") for title in ("train", "validation")
    }
    only = Sources((Task.SOD,), tmp_path, (), 20, 8, 4, cache, out, tree_of(SYNSETS), limit=5)
    assert len(split_jobs(only, "train", samples, with_hues(tmp_path, SFTSetting()))) == 5
