"""Small pictures for reports, embedded in the page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from saliency_r1.data.mask_files import MaskValues, load_grey, load_mask
from saliency_r1.data.true_instances import RunLengths, decode
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.reading import BY_BRIGHTNESS, Reading
from saliency_r1.images import load_image

LONGEST = 176

Captioned: TypeAlias = tuple[str, Image.Image | None]
"""A caption and its picture; None if there is no picture."""

PicturesOf: TypeAlias = Callable[[str], list[Captioned]]
"""Returns the pictures of the photo with that name."""

_COLOURS = ((228, 87, 46), (46, 125, 154), (106, 153, 78), (142, 94, 162), (184, 134, 11), (211, 84, 150))


def map_pictures(
    image: Path | None,
    truth: Path | None,
    predictions: dict[str, Path | None],
    reading: Reading = BY_BRIGHTNESS,
) -> list[Captioned]:
    """Return photo, truth and saliency maps.

    Args:
        image, truth: paths.
        predictions: paths by caption; None for an empty mask that was scored instead.
        reading: how masks and predictions were read.
    """
    of_mask, of_map = reading.masks or MaskValues.GREY, reading.predictions or MaskValues.GREY
    return [
        ("photo", _read(image, load_image)),
        ("truth", _read(truth, lambda path: Image.fromarray(load_mask(path, values=of_mask)).convert("L"))),
        *(
            (caption, _read(path, lambda path: Image.fromarray(load_grey(path, values=of_map))))
            for caption, path in predictions.items()
        ),
    ]


def instance_pictures(
    image: Path, truth: Sequence[RunLengths], predictions: dict[str, Sequence[RunLengths]]
) -> list[Captioned]:
    """Return the photo, and on it the true and the predicted instances in colour."""
    photo = _read(image, load_image)
    return [
        ("photo", photo),
        ("truth", _coloured(photo, truth)),
        *((caption, _coloured(photo, masks)) for caption, masks in predictions.items()),
    ]


def _read(path: Path | None, load: Callable[[Path], Image.Image]) -> Image.Image | None:
    if path is None:
        return None
    try:
        image = load(path)
    except (SaliencyError, OSError):
        return None
    return _small(image)


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((LONGEST, LONGEST))
    return image


def _coloured(photo: Image.Image | None, masks: Sequence[RunLengths]) -> Image.Image | None:
    if photo is None:
        return None
    picture = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", photo.size, "white"), 0.25)
    for index, mask in enumerate(masks):
        area = Image.fromarray(decode(mask).astype(np.uint8) * np.uint8(165)).resize(photo.size)
        picture.paste(_COLOURS[index % len(_COLOURS)], mask=area)
    return picture


def figure(caption: str, image: Image.Image | None) -> str:
    """Return a picture as HTML with the file embedded."""
    if image is None:
        return f'<figure><div class="none">none</div><figcaption>{escape(caption)}</figcaption></figure>'
    file = BytesIO()
    image.save(file, format="JPEG", quality=82)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" '
        f'width="{image.width}" height="{image.height}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
