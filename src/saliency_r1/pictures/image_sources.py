"""Read the images of a pipeline one by one, each with a unique name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from PIL import Image

from saliency_r1.errors import ImageError
from saliency_r1.images import LoadedImage, load_layers, open_source
from saliency_r1.pictures.finding import FoundImage

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = "str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor | FoundImage"
"""A path, the content of an image file, a file object, a PIL image, an array, a tensor, or a result of
`find_images`."""

OnError: TypeAlias = Callable[[ImageSource, ImageError], None]
"""Called with an image that cannot be read, or that a policy's server refuses, and the reason."""


@dataclass(frozen=True)
class LoadedSource:
    """An image that was read, its name, and the seconds for reading it."""

    source: ImageSource
    name: str
    picture: LoadedImage
    seconds: float

    @property
    def image(self) -> Image.Image:
        return self.picture.image

    @property
    def path(self) -> str | None:
        return _path_of(self.source)


def _path_of(source: ImageSource) -> str | None:
    source = source.path if isinstance(source, FoundImage) else source
    return str(source) if isinstance(source, str | Path) else None


def load_sources(
    images: Iterable[ImageSource], on_error: OnError | None, accept_truncated: bool
) -> Iterator[LoadedSource]:
    """Read each image when its turn comes.

    Args:
        images: the images to read.
        on_error: called for an image that cannot be read, which is skipped. Without it the error is raised.
        accept_truncated: see `saliency_r1.images.load_image`.
    """
    names = _Names()
    for source in images:
        start = perf_counter()
        try:
            picture = load_layers(
                source.path if isinstance(source, FoundImage) else source, accept_truncated=accept_truncated
            )
        except ImageError as error:
            if on_error is None:
                raise
            on_error(source, error)
            continue
        yield LoadedSource(source, names.of(source), picture, perf_counter() - start)


def rereadable(source: ImageSource) -> ImageSource:
    """Return a source that can be read twice: the content of a file object, anything else unchanged.

    Raises:
        ImageError: if the file object cannot be read.
    """
    return open_source(source)[0].read() if hasattr(source, "read") else source


class _Names:
    """Return a name for the files of each image, unique in the stream, ignoring case."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, source: ImageSource) -> str:
        if isinstance(source, FoundImage):  # has its own name
            self._numbers.setdefault(source.stem.casefold(), 1)
            return source.stem
        path = _path_of(source)
        stem = Path(path).stem if path else "image"
        key = stem.casefold()
        if key not in self._numbers:
            self._numbers[key] = 1
            return stem
        name = stem
        while name.casefold() in self._numbers:
            self._numbers[key] += 1
            name = f"{stem}-{self._numbers[key]}"
        self._numbers[name.casefold()] = 1
        return name
