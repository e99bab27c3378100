"""What is drawn on photos: colours that all can tell apart, numbers in their instances, a legend."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from saliency_r1 import overlay
from saliency_r1.overlay import PALETTE, font, innermost, paint_masks, with_legend, wrapped

# Full loss of one kind of cone, on linear RGB (Machado, Oliveira and Fernandes, TVCG 2009, table 1).
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": (
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ),
    "deuteranopes": (
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ),
    "tritanopes": (
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ),
}


def seen(colour: tuple[int, int, int], by: str) -> np.ndarray:
    """CIELAB of the colour as those people see it."""
    linear = (np.array(colour) / 255) ** 2.2
    return rgb2lab((np.clip(np.array(SEEN_BY[by]) @ linear, 0, 1) ** (1 / 2.2))[None, None])[0, 0]


@pytest.mark.parametrize("people", SEEN_BY)
def test_the_colours_are_told_apart_by_the_colour_blind(people: str) -> None:
    for one, other in combinations(PALETTE, 2):
        assert np.linalg.norm(seen(one, people) - seen(other, people)) > 14


def squares(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (240, 120)) -> list[np.ndarray]:
    """Masks that are 1 in a box left, top, right, bottom."""
    masks = []
    for left, top, right, bottom in boxes:
        mask = np.zeros(size[::-1], np.float32)
        mask[top:bottom, left:right] = 1
        masks.append(mask)
    return masks


def test_the_innermost_place_is_inside_even_where_the_centre_is_not() -> None:
    ring = np.zeros((90, 90), bool)
    ring[10:80, 10:80] = True
    ring[20:70, 20:75] = False
    ((x, y),) = innermost([ring])
    assert ring[int(y * 90), int(x * 90)]
    assert x * 90 < 20  # in the thicker side


def test_the_innermost_place_avoids_what_another_covers() -> None:
    large, small = (mask > 0 for mask in squares((0, 0, 240, 120), (60, 20, 180, 100)))
    places = innermost([large, small, large & ~large])
    assert places[2] is None
    assert not small[int(places[0][1] * 120), int(places[0][0] * 240)]
    # All of the small one lies in the large one: there is no place of its own.
    assert places[1] == pytest.approx((0.5, 0.5), abs=0.02)


def test_numbers_stand_in_their_instances_in_their_colours() -> None:
    photo = Image.new("RGB", (240, 120), (90, 90, 90))
    masks = squares((10, 20, 110, 100), (130, 20, 230, 100), (0, 0, 0, 0))
    plain, numbered = (
        np.asarray(paint_masks(photo, masks, numbered=numbered)).astype(int) for numbered in (False, True)
    )
    for index, (x, y) in enumerate([(60, 60), (180, 60)]):
        badge = numbered[y - 6 : y + 7, x - 6 : x + 7].reshape(-1, 3)
        away = np.abs(badge - PALETTE[index]).sum(axis=1)
        assert (away == 0).mean() > 0.3  # the disc
        assert (badge.sum(axis=1) < 150).mean() > 0.02  # the digit on it
        tint = numbered[y, x - 30] - plain[y, x - 30]
        assert np.abs(tint).sum() > 20
    assert np.array_equal(numbered[5, 120], plain[5, 120])


def test_ten_instances_are_numbered_too() -> None:
    photo = Image.new("RGB", (300, 60))
    masks = squares(*((30 * n, 10, 30 * n + 25, 50) for n in range(10)), size=(300, 60))
    drawn = np.asarray(paint_masks(photo, masks, numbered=True))
    assert drawn.shape == (60, 300, 3)
    assert (drawn[30, 282] == PALETTE[9 % len(PALETTE)]).all() or drawn[25:35, 275:290].std() > 20


def test_the_legend_has_a_line_for_each_entry_below_the_picture() -> None:
    picture = Image.new("RGB", (400, 100), "white")
    one, two = with_legend(picture, ["the dog"]), with_legend(picture, ["the dog", "the ball"])
    assert one.width == two.width == 400
    assert 100 < one.height < two.height
    assert two.crop((0, 0, 400, 100)).tobytes() == picture.tobytes()
    below = np.asarray(two)[100:].reshape(-1, 3).astype(int)
    for colour in PALETTE[:2]:
        assert (np.abs(below - colour).sum(axis=1) == 0).sum() > 50
    assert (np.abs(below - PALETTE[2]).sum(axis=1) == 0).sum() == 0
    assert with_legend(picture, []) is picture


def test_the_legend_of_a_small_picture_can_still_be_read() -> None:
    sheet = with_legend(Image.new("RGB", (10, 10), "white"), ["the dog on the left"])
    assert sheet.width == 320
    assert (np.asarray(sheet)[:10] == 255).all(axis=2).sum() == 100
    assert (np.asarray(sheet)[10:] > 200).all(axis=2).any()


def test_a_long_entry_is_cut_with_an_ellipsis() -> None:
    lettering = font(14)
    lines = wrapped("the very long name of a thing " * 9, lettering, 200, 2)
    assert len(lines) == 2
    assert lines[1].endswith(" …")
    assert all(lettering.getlength(line) <= 200 for line in lines)
    assert wrapped("the dog", lettering, 200, 2) == ["the dog"]


def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (300, 200, 3), dtype=np.uint8))
    masks = squares((20, 70, 150, 260), (120, 30, 180, 90), size=(200, 300))
    whole = np.asarray(paint_masks(photo, masks, numbered=True)).astype(int)
    monkeypatch.setattr(overlay, "_TILE", 37)
    assert np.abs(np.asarray(paint_masks(photo, masks, numbered=True)).astype(int) - whole).max() <= 2
