"""Measuring cues on pictures whose cues are known."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from saliency_r1.cue_limits import Level
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.statements import PHRASES, Kind

RGB = tuple[int, int, int]
GREEN, RED, WHITE, BLACK = (40, 140, 50), (200, 25, 30), (250, 250, 250), (8, 8, 8)


def picture(
    box: tuple[float, float, float, float],
    colour: RGB = RED,
    background: RGB = GREEN,
    size: tuple[int, int] = (200, 300),
) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of one colour on another; the box is (left, top, right, bottom) in shares."""
    height, width = size
    mask = np.zeros(size, bool)
    mask[round(box[1] * height) : round(box[3] * height), round(box[0] * width) : round(box[2] * width)] = (
        True
    )
    return np.where(mask[..., None], np.uint8(colour), np.uint8(background)), mask


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0.05, 0.4, 0.35, 0.6), "left"),
        ((0.7, 0.4, 0.95, 0.6), "right"),
        ((0.4, 0.05, 0.6, 0.3), "top"),
        ((0.4, 0.7, 0.6, 0.95), "bottom"),
        ((0.4, 0.4, 0.6, 0.6), "centre"),
        ((0.05, 0.05, 0.3, 0.3), "top left"),
        ((0.7, 0.7, 0.95, 0.95), "bottom right"),
    ],
)
def test_place_is_read_from_the_grid(box: tuple[float, float, float, float], place: str) -> None:
    cues = measure(*picture(box))
    assert cues.clear(Kind.PLACE)[0] == place
    assert "no edge" in cues.clear(Kind.PLACE)


@pytest.mark.parametrize(
    ("side", "size"), [(0.15, "tiny"), (0.3, "small"), (0.5, "medium"), (0.65, "large"), (0.9, "most")]
)
def test_size_is_the_share_of_the_picture(side: float, size: str) -> None:
    low, high = 0.5 - side / 2, 0.5 + side / 2
    cues = measure(*picture((low, low, high, high)))
    assert cues.area == pytest.approx(side * side, abs=0.01)
    assert cues.clear(Kind.SIZE) == (size,)


def test_what_another_mask_does_not_bear_out_is_not_clear() -> None:
    left = measure(*picture((0.05, 0.4, 0.35, 0.6)))
    assert replace(left, witness=left).clear(Kind.PLACE) == left.clear(Kind.PLACE)
    wide = measure(picture((0.05, 0.4, 0.35, 0.6))[0], picture((0.05, 0.1, 0.95, 0.9))[1])
    checked = replace(left, witness=wide)
    assert "left" not in checked.clear(Kind.PLACE)
    assert "no edge" in checked.clear(Kind.PLACE)
    assert checked.clear(Kind.SIZE) == ()
    assert checked.holds(Kind.PLACE, "left")  # true all the same


@pytest.mark.parametrize("size", [(200, 300), (40, 60), (1000, 1500)])
def test_an_object_on_the_limit_of_two_sizes_is_given_none(size: tuple[int, int]) -> None:
    side = 0.15**0.5 / 2
    cues = measure(*picture((0.5 - side, 0.5 - side, 0.5 + side, 0.5 + side), size=size))
    assert cues.clear(Kind.SIZE) == ()
    assert cues.holds(Kind.SIZE, "small", Level.TOLERANT)
    assert cues.holds(Kind.SIZE, "medium", Level.TOLERANT)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 10), "black"),
        ((120, 120, 120), "grey"),
        ((250, 250, 250), "white"),
        ((200, 25, 30), "red"),
        ((245, 140, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((40, 140, 50), "green"),
        ((40, 80, 190), "blue"),
        ((120, 50, 160), "purple"),
        ((250, 170, 190), "pink"),
        ((115, 75, 45), "brown"),
    ],
)
def test_the_eleven_basic_colours(rgb: RGB, name: str) -> None:
    cues = measure(*picture((0.3, 0.3, 0.7, 0.7), rgb, rgb))
    assert set(cues.clear(Kind.COLOUR)) == {name, f"background {name}"}


def test_two_colours_in_equal_parts_leave_no_colour_clear() -> None:
    image, mask = picture((0.3, 0.3, 0.7, 0.7), RED, WHITE)
    image[:, :150][mask[:, :150]] = BLACK
    assert not {"red", "black"} & set(measure(image, mask).clear(Kind.COLOUR))


def test_contrast_compares_with_the_surroundings_of_the_object() -> None:
    image, mask = picture((0.4, 0.4, 0.6, 0.6), WHITE, BLACK)
    assert {"lighter", "strong"} <= set(measure(image, mask).clear(Kind.CONTRAST))
    # Far away from the object everything may be white: it is the ring around it that counts.
    image[:, :40] = image[:, -40:] = 255
    assert "lighter" in measure(image, mask).clear(Kind.CONTRAST)
    dark, mask = picture((0.4, 0.4, 0.6, 0.6), BLACK, WHITE)
    assert "darker" in measure(dark, mask).clear(Kind.CONTRAST)
    same, mask = picture((0.4, 0.4, 0.6, 0.6), (125, 120, 120), (120, 120, 125))
    assert measure(same, mask).clear(Kind.CONTRAST) == ("little",)
    red, mask = picture((0.4, 0.4, 0.6, 0.6), RED, (100, 100, 100))
    assert "more colourful" in measure(red, mask).clear(Kind.CONTRAST)
    grey, mask = picture((0.4, 0.4, 0.6, 0.6), (100, 100, 100), RED)
    assert "less colourful" in measure(grey, mask).clear(Kind.CONTRAST)


def test_texture_on_a_flat_background_is_sharper() -> None:
    image, mask = picture((0.2, 0.2, 0.8, 0.8), (128, 128, 128), (128, 128, 128))
    noise = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    assert measure(image, mask).sharpness == pytest.approx(0, abs=0.01)
    assert "sharper" in measure(np.where(mask[..., None], noise, image), mask).clear(Kind.CONTRAST)
    assert not measure(np.where(mask[..., None], image, noise), mask).holds(
        Kind.CONTRAST, "sharper", Level.TOLERANT
    )


def test_edges_and_separate_areas() -> None:
    image, mask = picture((0.0, 0.3, 0.4, 0.7))
    assert {"left edge"} == {value for value in measure(image, mask).clear(Kind.PLACE) if "edge" in value}
    mask |= mask[:, ::-1]
    cues = measure(image, mask)
    assert "two areas" in cues.clear(Kind.PLACE)
    assert "centre" not in cues.clear(Kind.PLACE)
    mask[5:50, 110:190] = True
    cues = measure(image, mask)
    assert "several areas" in cues.clear(Kind.PLACE)
    assert not cues.holds(Kind.PLACE, "two areas", Level.TOLERANT)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3), (300, 1), (50, 70)])
def test_degenerate_masks_are_defined(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    empty = measure(image, np.zeros(shape, bool))
    assert empty == Cues(area=0.0)
    statements = [(kind, value) for kind in Kind for value in PHRASES[kind]]
    assert [pair for pair in statements if empty.holds(*pair, Level.TOLERANT)] == [(Kind.SIZE, "nothing")]
    full = measure(image, np.ones(shape, bool))
    assert full.area == 1
    assert full.contrast is None
    assert full.clear(Kind.SIZE) == ("most",)
    assert not any(full.holds(Kind.CONTRAST, value, Level.TOLERANT) for value in PHRASES[Kind.CONTRAST])
    single = np.zeros(shape, bool)
    single[-1, -1] = True
    cues = measure(image, single)
    assert cues.area == 1 / single.size
    assert all(isinstance(cues.holds(*pair), bool) for pair in statements)


def test_a_clear_statement_also_holds_plainly_and_a_plain_one_tolerantly() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        low, high = np.sort(rng.random((2, 2)), 0)
        image, mask = picture(
            (low[0], low[1], high[0], high[1]), *(tuple(rng.integers(0, 256, 3)) for _ in range(2))
        )
        cues = measure(image, mask)
        for kind in Kind:
            held = [{value for value in PHRASES[kind] if cues.holds(kind, value, level)} for level in Level]
            assert set(cues.clear(kind)) <= held[0] <= held[1] <= held[2]


def test_input_forms_are_equal_and_bad_ones_refused() -> None:
    image, mask = picture((0.1, 0.1, 0.5, 0.5))
    cues = measure(image, mask)
    assert measure(Image.fromarray(image), mask) == cues
    assert measure(image, mask.astype(np.float32) * 0.6) == cues
    assert measure(image, mask.astype(np.uint8) * 255) == cues
    assert pickle.loads(pickle.dumps(cues)) == cues
    with pytest.raises(SaliencyError, match="uint8 image"):
        measure(image.astype(float), mask)
    with pytest.raises(SaliencyError, match="shape"):
        measure(image, mask[..., None])


def test_samples_and_synsets_refuse_what_cannot_be_meant(tmp_path) -> None:
    synset = Synset("n1", "dog", ["pooch"], ["animal"])  # type: ignore[arg-type]
    assert synset.synonyms == ("pooch",)
    assert hash(synset) == hash(Synset("n1", "dog", ("pooch",), ("animal",)))
    assert Sample("a", str(tmp_path / "a.png")).image == tmp_path / "a.png"  # type: ignore[arg-type]
    with pytest.raises(SaliencyError, match="needs an id and a name"):
        Synset("n1", " ")
    with pytest.raises(SaliencyError, match="not one text"):
        Synset("n1", "dog", "pooch")  # type: ignore[arg-type]
    with pytest.raises(SaliencyError, match="needs a name"):
        Sample("", tmp_path)
