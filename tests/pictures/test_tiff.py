"""TIFF files whose descriptions are damaged: the picture is sound, and read."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from saliency_r1.images import load_image

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def described(compression: str) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[305], tags[306], tags[315] = "a long description", "a program", "2026:01:01", "somebody"
    file = BytesIO()
    Image.fromarray(NOISE).save(file, format="TIFF", tiffinfo=tags, compression=compression)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("tag", [270, 305, 306, 315])
@pytest.mark.parametrize(("place", "value"), [(4, 0x7FFFFFFF), (8, 0x7FFFFFF0), (8, 2**32 - 1), (4, 10**6)])
def test_a_description_that_leads_out_of_the_file_is_left_out(
    compression: str, tag: int, place: int, value: int
) -> None:
    content = bytearray(described(compression))
    (start,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[start : start + 2])
    entries = {
        struct.unpack("<H", content[at : at + 2])[0]: at
        for at in range(start + 2, start + 2 + 12 * count, 12)
    }
    at = entries[tag] + place
    content[at : at + 4] = struct.pack("<I", value)
    assert np.array_equal(load_image(bytes(content)), NOISE)
