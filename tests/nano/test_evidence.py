"""What the policy is told of statements agrees with what is measured of a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from saliency_r1.cue_limits import TOLD, Level
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.statements import Kind
from saliency_r1.nano.evidence import EVIDENCE, evidence
from saliency_r1.nano.vision import lab
from saliency_r1.photos import FOLDER, SINGLE

SIDE, CELL = 32, 8
REGIONS = [(0, 8, 12, 30), (4, 4, 9, 10), (10, 9, 24, 26), (20, 0, 32, 14), (2, 2, 30, 29), (12, 20, 19, 31)]


def look(name: str, region: tuple[int, int, int, int]) -> tuple[dict[tuple[str, str], float], Cues]:
    """What the policy is told of a region of a photo, and the cues of the same region."""
    image = Image.open(FOLDER / name).convert("RGB").resize((SIDE * CELL, SIDE * CELL))
    left, top, right, bottom = region
    shares = torch.zeros(1, SIDE, SIDE)
    shares[:, top:bottom, left:right] = 1
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    colours = lab(torch.nn.functional.avg_pool2d(pixels, CELL))
    told = evidence(shares, colours)[0]
    mask = np.kron(shares[0].numpy() > 0, np.ones((CELL, CELL), bool))
    return dict(zip(TOLD, told.tolist(), strict=True)), measure(image, mask)


def test_there_is_a_number_for_each_statement() -> None:
    assert len(TOLD) == len(set(TOLD)) == EVIDENCE


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("region", REGIONS)
def test_what_is_told_as_clear_holds_and_what_is_clear_is_told(
    name: str, region: tuple[int, int, int, int]
) -> None:
    told, cues = look(name, region)
    clear = {(kind.value, value) for kind in Kind for value in cues.clear(kind)}
    wrong = [
        key
        for key, value in told.items()
        if value > 0 and not cues.holds(Kind(key[0]), key[1], Level.TOLERANT)
    ]
    assert not wrong
    assert not [key for key in clear & set(TOLD) if told[key] < -0.9]


def test_a_picture_without_a_region_bears_out_nothing() -> None:
    found = evidence(torch.zeros(2, SIDE, SIDE), torch.rand(2, 3, SIDE, SIDE))
    assert (found == -1).all()
    assert evidence(torch.ones(1, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE)).isfinite().all()


def test_mirroring_swaps_the_sides() -> None:
    shares, colours = torch.zeros(1, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE)
    shares[:, 5:14, 2:9] = 1
    found, mirrored = (
        dict(zip(TOLD, evidence(*pair)[0].tolist(), strict=True))
        for pair in ((shares, colours), (shares.flip(2), colours.flip(3)))
    )
    swap = {"left": "right", "right": "left"}
    for (kind, value), number in found.items():
        turned = " ".join(swap.get(word, word) for word in value.split())
        assert mirrored[kind, turned] == pytest.approx(number, abs=1e-4)


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    shares = torch.zeros(4, SIDE, SIDE)
    for number in range(4):
        shares[number, 3 + 2 * number : 20, 2 * number : 9 + 3 * number] = 1
    colours = torch.rand(4, 3, SIDE, SIDE)
    alone = torch.cat([evidence(shares[row : row + 1], colours[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(evidence(shares, colours), alone)
