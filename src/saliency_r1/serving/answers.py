"""Make an answer in the type that the client accepts: JSON, a PNG, or a zip of all files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from saliency_r1.overlay import to_grey
from saliency_r1.pictures.encoding import write_png
from saliency_r1.result import SaliencyResult
from saliency_r1.serving.engine import Picture
from saliency_r1.serving.problems import Problem

JSON, PNG, ZIP = "application/json", "image/png", "application/zip"

_LONGEST_NAME = 80


class View(StrEnum):
    """The picture in a PNG answer."""

    MASK = "mask"
    OVERLAY = "overlay"
    CUTOUT = "cutout"


def choose_media(accept: str | None, images: int) -> str:
    """Choose the media type of the answer: the first of JSON, PNG and zip among those that are preferred.

    Args:
        accept: the request's `Accept` header; without it everything is accepted.
        images: number of images of the request. PNG is offered only for one.

    Raises:
        Problem: 406 if no type is accepted.
    """
    offered = [media for media in (JSON, PNG, ZIP) if media != PNG or images == 1]
    ranges = [_media_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    best, wanted = JSON, 0.0
    for media in offered:
        # The most specific range that matches counts (RFC 9110, section 12.5.1).
        matching = [(len(one.rstrip("*")), quality) for one, quality in ranges if _matches(one, media)]
        quality = max(matching)[1] if matching else 0.0
        if quality > wanted:
            best, wanted = media, quality
    if not wanted:
        hint = "; a PNG is for one image alone" if images > 1 else ""
        raise Problem(406, f"this is answered as {', '.join(offered)}{hint}", "not-acceptable")
    return best


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                quality = 0.0
    return name, quality


def _matches(media_range: str, media: str) -> bool:
    return media_range in ("*/*", media, f"{media.partition('/')[0]}/*")


def picture_names(file_names: Sequence[str | None]) -> list[str]:
    """Return a unique name for each uploaded file, without folders and ending."""
    names: list[str] = []
    for file_name in file_names:
        stem = PurePosixPath((file_name or "").replace("\\", "/")).stem
        name = "".join(sign if sign.isprintable() else "_" for sign in stem)[:_LONGEST_NAME].strip(". ")
        name = base = name or "image"
        number = 1
        while name.casefold() in (taken.casefold() for taken in names):
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


def renderer(media: str, view: View) -> Callable[[Picture, SaliencyResult], Any]:
    """Return the function that makes an answer's part from one result."""
    if media == PNG:
        return lambda picture, result: png(result, view)
    if media == ZIP:
        return lambda picture, result: files(replace(result, name=picture.name))
    return lambda picture, result: {**result.to_dict(), "name": picture.name}


def png(result: SaliencyResult, view: View) -> bytes:
    """Return a picture of a result as PNG: mask in 8-bit grey, overlay in RGB or cut-out in RGBA."""
    picture = {
        View.MASK: lambda: to_grey(result.mask),
        View.OVERLAY: lambda: result.overlay(legend=result.task.spec.several_expressions),
        View.CUTOUT: result.cutout,
    }[view]()
    return _encoded(picture)


def _encoded(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    write_png(picture, buffer)
    return buffer.getvalue()


def files(result: SaliencyResult) -> dict[str, bytes]:
    """Return the files that `SaliencyResult.save` writes: name and content."""
    with TemporaryDirectory(prefix="saliency-r1-") as folder:
        paths = result.save(folder, overwrite=True).values()
        return {path.name: Path(path).read_bytes() for path in paths}


def body(media: str, parts: Sequence[Any], facts: dict[str, Any]) -> bytes:
    """Make the whole answer from the parts that `renderer` made.

    Args:
        media: JSON, PNG or ZIP.
        parts: a part for each picture.
        facts: facts of the request, for JSON.
    """
    if media == PNG:
        return bytes(parts[0])
    if media == JSON:
        return json.dumps({**facts, "results": parts}, allow_nan=False).encode()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # pictures are already compressed
        for part in parts:
            for name, content in part.items():
                archive.writestr(name, content)
    return buffer.getvalue()
