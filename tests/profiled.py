"""A photo as cameras and editors write it: with a colour profile."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from skimage import data

SRGB = ImageCms.createProfile("sRGB")
WIDE = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
SWAPPED = ((0.1431, 0.0606, 0.7141), (0.3851, 0.7169, 0.0971), (0.4360, 0.2225, 0.0139))


def matrix_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """An ICC profile of a display: the XYZ of its primaries, and one gamma."""

    def fixed(values: tuple[float, ...]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed((0.9642, 1.0, 0.8249))}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(primary)
        tags[letter + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(">I4sI", 128 + len(table) + len(body), b"lcms", 0x02100000) + b"mntrRGB XYZ "
    head = head.ljust(36, b"\0") + b"acsp"
    return head.ljust(68, b"\0") + fixed((0.9642, 1.0, 0.8249)) + bytes(48) + table + body


def photo() -> Image.Image:
    return Image.fromarray(data.coffee()).resize((150, 100))


def stored_in(profile: bytes, mode: str = "RGB") -> Image.Image:
    """The photo as a camera or an editor writes it with this profile."""
    target = ImageCms.ImageCmsProfile(BytesIO(profile))
    return ImageCms.profileToProfile(photo(), SRGB, target, outputMode=mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def difference(image: Image.Image) -> float:
    return float(np.abs(np.asarray(image, float) - np.asarray(photo(), float)).mean())
