"""The benchmark of named instances, with segmenters whose right answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_data import save
from repository import module_at
from saliency_r1.data.true_instances import InstanceImage, TrueInstance, encode
from saliency_r1.language.expressions import GENERIC
from stubs import SegmenterStub

bench = module_at("benchmarks/segmenter_instances.py")

LEFT, RIGHT = (slice(20, 60), slice(5, 35)), (slice(20, 60), slice(65, 95))


def boxed(box: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((80, 100), bool)
    mask[box] = True
    return mask


def photo_of(tmp_path: Path, *boxes: tuple[slice, slice]) -> InstanceImage:
    save(Image.new("RGB", (100, 80), (60, 90, 30)), tmp_path / "photo.png")
    instances = tuple(TrueInstance(encode(boxed(box))) for box in boxes)
    return InstanceImage(1, "photo", tmp_path / "photo.png", 80, 100, instances)


class Finder(SegmenterStub):
    """Finds the left instance for texts that mean it, by `means_left`, else the right one."""

    name = "finder"

    def __init__(self, means_left: dict[str, bool] | None) -> None:
        super().__init__()
        self.means_left = means_left

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        return boxed(LEFT if self.is_left(expression) else RIGHT)

    def is_left(self, text: str) -> bool:
        if self.means_left is None:
            return True
        for word, left in self.means_left.items():
            if word in text:
                return left
        return ("left" in text and "second" not in text) or ("second" in text and "from the right" in text)


def ask(segmenter: Finder, image: InstanceImage, names: Sequence[str]) -> list:
    return list(bench.answers_of(segmenter, "COCO-train", image, names, np.random.default_rng(0)))


def test_different_things_are_asked_for_by_name(tmp_path: Path) -> None:
    finder = Finder({"dog": True, "cat": False})
    answers = ask(finder, photo_of(tmp_path, LEFT, RIGHT), ("dog", "cat"))
    assert [each.kind for each in answers] == ["name", "name"]
    assert all(each.right and each.iou == 1 for each in answers)
    assert "dog" in answers[0].text
    assert "cat" in answers[1].text
    # What is asked for all together finds the right one alone.
    assert finder.asked[-1] == GENERIC[0]
    assert [each.baseline_right for each in answers] == [False, True]


def test_equal_things_are_asked_for_by_place_or_order(tmp_path: Path) -> None:
    answers = ask(Finder({}), photo_of(tmp_path, LEFT, RIGHT), ("dog", "dog"))
    assert {each.kind for each in answers} <= {"place", "order"}
    assert all(each.right for each in answers)
    always_left = ask(Finder(None), photo_of(tmp_path, LEFT, RIGHT), ("dog", "dog"))
    assert [(each.right, each.iou) for each in always_left] == [(True, 1.0), (False, 0.0)]


def test_what_cannot_be_told_apart_is_left_out(tmp_path: Path) -> None:
    almost = (slice(20, 60), slice(6, 36))
    assert ask(Finder({}), photo_of(tmp_path, LEFT, almost), ("dog", "dog")) == [None, None]


def test_no_mask_is_no_right_answer() -> None:
    masks = np.stack([boxed(LEFT), boxed(RIGHT)])
    values = bench.ious(np.zeros((80, 100), bool), masks)
    assert not bench.is_highest(values, 0)
    assert not bench.is_highest(values, 1)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.print_rows(ask(Finder(None), photo_of(tmp_path, LEFT, RIGHT), ("dog", "dog")))
    rows = capsys.readouterr().out.splitlines()
    assert "| all | 2 | 0.5000 | 0.5000 | 0.5000 | 0.5000 |" in rows
    assert "| COCO-train | 2 | 0.5000 | 0.5000 | 0.5000 | 0.5000 |" in rows
