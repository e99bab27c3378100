"""Sheets of several results."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from saliency_r1.contact_sheet import ACCENT, CELL, GroupSheet, contact_sheet, sections
from saliency_r1.overlay import PALETTE
from saliency_r1.result import Instance, SaliencyResult
from saliency_r1.tasks import Task


def made(task: Task, *expressions: str, name: str = "photo", there: bool = True) -> SaliencyResult:
    """A grey photo with a bar for each expression."""
    instances = []
    for index, expression in enumerate(expressions if there else ()):
        mask = np.zeros((60, 90), np.float32)
        mask[10:50, 5 + 20 * index : 20 + 20 * index] = 1
        instances.append(Instance(expression, mask, 0.5))
    return SaliencyResult(
        name=name,
        source=None,
        image=Image.new("RGB", (90, 60), (120, 120, 120)),
        task=task,
        text="",
        reasoning="It is large. " * 4,
        expressions=expressions,
        instances=tuple(instances),
        confidence=0.5,
        model="none",
        policy_confidence=0.75,
    )


def pixels(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many are of that colour, JPEG aside."""
    return int((np.abs(np.asarray(sheet).astype(int) - colour).sum(axis=2) == 0).sum())


def test_instances_are_listed_with_their_numbers_in_their_colours() -> None:
    plain = contact_sheet([made(Task.SOD, "the bar")])
    several = contact_sheet([made(Task.SIS, "the first bar", "the second bar", "the third bar")])
    assert several.height > plain.height
    words = several.crop((0, plain.height - 200, several.width, several.height))
    for colour in PALETTE[:3]:
        assert pixels(words, colour) > 100
    assert pixels(words, PALETTE[3]) == 0


def test_a_sheet_is_as_high_as_its_longest_words() -> None:
    short, long = made(Task.SIS, "a bar"), made(Task.SIS, *(f"the bar number {n}" for n in range(4)))
    assert contact_sheet([short, long]).height == contact_sheet([long]).height
    below = contact_sheet([short, long], columns=1)
    assert below.height > contact_sheet([long]).height + 3 * CELL[1]


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no results"):
        contact_sheet([])
    with pytest.raises(ValueError, match="no results"):
        GroupSheet().draw()


@pytest.mark.parametrize("count", [1, 4, 5, 13, 200])
def test_a_group_sheet_shows_every_photo(count: int) -> None:
    sheet = GroupSheet()
    for number in range(count):
        sheet.add(made(Task.COSOD, "the bar", name=f"album/{number}"))
    assert len(sheet) == count
    drawn = sheet.draw()
    assert drawn.width == 4 * CELL[0] + 3 * 14 + 2 * 28
    assert drawn.height < 6000
    orange = np.abs(np.asarray(drawn).astype(int) - PALETTE[0]).sum(axis=2) < 90
    assert label(orange, np.ones((3, 3)))[1] >= count


def test_a_photo_without_the_object_is_said_to_be_so() -> None:
    with_it, without = GroupSheet(), GroupSheet()
    for sheet, there in ((with_it, True), (without, False)):
        sheet.add(made(Task.COSOD, "the bar"))
        sheet.add(made(Task.COSOD, "the bar", there=there))
    said, unsaid = (np.asarray(sheet.draw())[-60:] for sheet in (without, with_it))
    accent = np.array([int(ACCENT[at : at + 2], 16) for at in (1, 3, 5)])
    assert (np.abs(said.astype(int) - accent).sum(axis=2) < 30).any()
    assert not (np.abs(unsaid.astype(int) - accent).sum(axis=2) < 30).any()


def test_a_group_sheet_keeps_no_result() -> None:
    sheet = GroupSheet()
    result = made(Task.COSOD, "the bar")
    kept = [weakref.ref(result), weakref.ref(result.image), weakref.ref(result.instances[0])]
    sheet.add(result)
    del result
    assert [reference() for reference in kept] == [None] * 3


def test_sections_stand_below_each_other() -> None:
    one, two = Image.new("RGB", (100, 50), "red"), Image.new("RGB", (300, 70), "blue")
    whole = sections([("first", one), ("second", two)])
    assert whole.width == 300
    assert pixels(whole, (255, 0, 0)) == 100 * 50
    assert pixels(whole, (0, 0, 255)) == 300 * 70
    assert whole.height > 120 + 2 * 30
