"""Results as other tools take them, read back by those tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from saliency_r1.converters import to_coco, to_detections, to_label_studio
from saliency_r1.errors import SaliencyError
from saliency_r1.result import Instance, SaliencyResult
from saliency_r1.tasks import Task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def square(left: int, top: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 60), np.float32)
    mask[top : top + side, left : left + side] = 0.75
    return mask


def result(*named: tuple[str, np.ndarray, float], source: str | None = "photos/dog.jpg") -> SaliencyResult:
    return SaliencyResult(
        name="dog",
        source=source,
        image=Image.new("RGB", (60, 40), (200, 60, 40)),
        task=Task.SIS,
        text="",
        reasoning="",
        expressions=tuple(name for name, _, _ in named),
        instances=tuple(Instance(*one) for one in named),
        confidence=0.5,
        model="nano",
    )


EMPTY = np.zeros((40, 60), np.float32)
TWO = [("the dog", square(10, 5, 20), 0.9), ("nothing", EMPTY, 0.1), ("the ball", square(40, 20, 8), 0.6)]


def test_detections_hold_boxes_masks_scores_and_names() -> None:
    supervision = pytest.importorskip("supervision")
    detections = to_detections(result(*TWO, ("the dog", square(0, 0, 5), 0.3)))
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.tolist() == [[10, 5, 30, 25], [40, 20, 48, 28], [0, 0, 5, 5]]
    assert detections.area.tolist() == [400, 64, 25]
    assert detections["class_name"].tolist() == ["the dog", "the ball", "the dog"]
    assert detections.class_id.tolist() == [0, 1, 0]
    sure = detections[detections.confidence > 0.5]
    photo = np.zeros((40, 60, 3), np.uint8)
    drawn = supervision.MaskAnnotator(opacity=1.0).annotate(photo.copy(), sure)
    assert np.array_equal(drawn.any(axis=2), sure.mask.any(axis=0))


def test_nothing_found_is_no_detection() -> None:
    pytest.importorskip("supervision")
    assert len(to_detections(result(("nothing", EMPTY, 0.1)))) == 0


def test_without_supervision_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(SaliencyError, match="needs supervision: pip install supervision"):
        to_detections(result(*TWO))


def test_coco_json_is_read_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = result(("the ball", square(0, 0, 3), 0.4), source=None)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(to_coco(iter([result(*TWO), result(), other]))))
    read = COCO(str(path))
    capsys.readouterr()
    assert [image["file_name"] for image in read.loadImgs(read.getImgIds())] == [
        "photos/dog.jpg",
        "photos/dog.jpg",
        "dog",
    ]
    assert [one["name"] for one in read.loadCats(read.getCatIds())] == ["the dog", "the ball"]
    first = read.loadAnns(read.getAnnIds(imgIds=1))
    assert [one["bbox"] for one in first] == [[10, 5, 20, 20], [40, 20, 8, 8]]
    assert np.array_equal(read.annToMask(first[0]), TWO[0][1] > 0.5)
    assert coco_mask.area(first[1]["segmentation"]) == first[1]["area"] == 64
    assert read.getAnnIds(imgIds=2) == []
    assert [one["category_id"] for one in read.loadAnns(read.getAnnIds(imgIds=3))] == [2]


def unpacked(packed: list[int]) -> np.ndarray:
    """What the packed runs hold, read as the description of rle-pack says."""
    text = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        return int(text[place - size : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


def test_label_studio_reads_the_brushes() -> None:
    large = np.zeros((300, 400), np.float32)
    large[100:280, 7:333] = 1
    large[::7, ::5] = 0
    photo = Image.new("RGB", (400, 300))
    one = SaliencyResult(
        "dog", None, photo, Task.SOD, "", "", ("dog",), (Instance("dog", large, 0.9),), None, "nano"
    )
    for found, mask in ((one, large), (result(*TWO), TWO[0][1])):
        task = json.loads(json.dumps(to_label_studio(found, "/data/dog.jpg")))
        assert task["data"] == {"image": "/data/dog.jpg"}
        (prediction,) = task["predictions"]
        value = prediction["result"][0]["value"]
        read = unpacked(value["rle"]).reshape(*mask.shape, 4)
        assert np.array_equal(read, np.repeat(255 * (mask > 0.5)[..., None], 4, axis=2))
    assert [region["value"]["brushlabels"] for region in prediction["result"]] == [["the dog"], ["the ball"]]


def test_label_studios_own_package_takes_the_task() -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    config = (
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="Salient"/></BrushLabels></View>'
    )
    task = to_label_studio(result(*TWO), "/data/dog.jpg", label="Salient")
    (prediction,) = task["predictions"]
    assert interface.LabelInterface(config).validate_prediction(prediction)
    for region, mask in zip(prediction["result"], (TWO[0][1], TWO[2][1]), strict=True):
        read = brush.decode_rle(region["value"]["rle"]).reshape(40, 60, 4)
        assert np.array_equal(read[..., 3] > 0, mask > 0.5)
