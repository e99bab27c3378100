"""Pictures as they are written: the same pixels, marked as ours, in the format of the name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_r1.errors import SaliencyError
from saliency_r1.pictures.encoding import check_ending, save_picture, write_png
from saliency_r1.pictures.own_files import SOFTWARE, is_own


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (301, 207)])
def test_a_png_holds_the_pixels_and_whose_it_is(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    picture = Image.fromarray(data.chelsea()).resize(size).convert(mode)
    if mode == "RGBA":
        picture.putalpha(picture.getchannel("G"))
    content = BytesIO()
    write_png(picture, content)
    with Image.open(content) as read:
        assert (read.format, read.mode, read.size) == ("PNG", mode, size)
        assert np.array_equal(np.asarray(read), np.asarray(picture))
        assert read.info["Software"] == SOFTWARE
    with Image.open(content) as read:
        read.verify()  # the check sums
    path = tmp_path / "picture.png"
    path.write_bytes(content.getvalue())
    assert is_own(path)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".webp", ".tif"])
def test_the_ending_says_the_format_and_nothing_is_lost(ending: str, tmp_path: Path) -> None:
    picture = Image.fromarray(data.chelsea()).resize((40, 30)).convert("RGBA")
    picture.putalpha(picture.getchannel("R"))
    path = save_picture(picture, tmp_path / f"cut{ending}")
    with Image.open(path) as read:
        assert read.format == {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[ending.lower()]
        assert np.array_equal(np.asarray(read), np.asarray(picture))


def test_an_ending_without_transparency_or_unknown_is_refused() -> None:
    check_ending(Path("cut.png"), opaque=False)
    check_ending(Path("cut.jpg"), opaque=True)
    with pytest.raises(SaliencyError, match="JPEG has no transparency"):
        check_ending(Path("cut.jpg"), opaque=False)
    with pytest.raises(SaliencyError, match=r"cut.gif: expected one of \.png"):
        check_ending(Path("cut.gif"), opaque=True)
