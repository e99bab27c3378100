"""Keep photos and masks of one size in two arrays on disk, so that training reads no picture files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.mask_files import load_grey
from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.images import load_image


@dataclass(frozen=True)
class PackedPhotos:
    """N photos and masks, resized to a square.

    Attributes:
        names: N file names without suffix.
        images: uint8 (N, S, S, 3), RGB.
        masks: uint8 (N, S, S), 0 to 255.
    """

    names: tuple[str, ...]
    images: np.memmap
    masks: np.memmap

    @classmethod
    def open(cls, samples: Sequence[Sample], folder: str | Path, size: int) -> PackedPhotos:
        """Open the packed form of `samples`, memory-mapped; it is made in `folder` if it is missing.

        Raises:
            SaliencyError: if a sample has no mask.
        """
        folder = Path(folder)
        names = tuple(sample.name for sample in samples)
        index = folder / "index.json"
        if not index.is_file() or json.loads(index.read_text()) != {"size": size, "names": list(names)}:
            _pack(samples, folder, size)
            (folder / "colours.json").unlink(missing_ok=True)
            write_bytes_atomic(index, json.dumps({"size": size, "names": list(names)}).encode())
        images = np.load(folder / "images.npy", mmap_mode="r")
        return cls(names, images, np.load(folder / "masks.npy", mmap_mode="r"))

    def colours(self) -> list[str | None]:
        """Return the colour word of each photo's object, or None if unclear; measured once, then kept."""
        from rich.progress import track

        from saliency_r1.cue_limits import COLOURS
        from saliency_r1.language.cues import measure
        from saliency_r1.language.statements import Kind

        path = Path(str(self.images.filename)).with_name("colours.json")
        if path.is_file():
            return list(json.loads(path.read_text()))
        found: list[str | None] = []
        for image, mask in track(zip(self.images, self.masks, strict=True), "measuring colours", len(self)):
            clear = measure(np.array(image), mask > 127).clear(Kind.COLOUR)
            found.append(next((value for value in clear if value in COLOURS), None))
        write_bytes_atomic(path, json.dumps(found).encode())
        return found

    def __len__(self) -> int:
        return len(self.names)


def _pack(samples: Sequence[Sample], folder: Path, size: int) -> None:
    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    open_array = np.lib.format.open_memmap
    images = open_array(folder / "images.npy", "w+", np.uint8, (len(samples), size, size, 3))
    masks = open_array(folder / "masks.npy", "w+", np.uint8, (len(samples), size, size))
    for row, sample in enumerate(track(samples, f"packing {len(samples)} photos at {size} px")):
        if sample.mask is None:
            raise SaliencyError(f"{sample.name} has no mask: training needs one for each photo")
        image, mask = load_image(sample.image), Image.fromarray(load_grey(sample.mask))
        images[row] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        masks[row] = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR))
    images.flush()
    masks.flush()
