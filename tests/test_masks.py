"""Masks on the ground floor: overlap and connected parts."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_r1.errors import one_line
from saliency_r1.masks import check_pair, connected_parts, iou


def test_iou_of_masks() -> None:
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert iou(first, second) == 1
    first[:2] = True
    assert iou(first, second) == 0
    second[1:3] = True
    assert iou(first, second) == pytest.approx(1 / 3)


def test_parts_connect_over_corners_and_small_ones_are_left_out() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:5, 2:5] = mask[5:8, 5:8] = True
    mask[15:18, 15:18] = True
    mask[0, 19] = True
    assert sorted(int(part.sum()) for part in connected_parts(mask)) == [9, 18]
    assert sorted(int(part.sum()) for part in connected_parts(mask, least=0)) == [1, 9, 18]
    assert connected_parts(np.zeros((3, 3), bool)) == []


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected the ground truth's \(3, 2\)"):
        check_pair(np.zeros((2, 3)), np.zeros((3, 2)))


def test_what_an_error_says_is_one_line() -> None:
    assert one_line(ValueError("one\n  two")) == "one two"
    assert one_line(FileNotFoundError(2, "No such file or directory", "x")) == "No such file or directory"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
