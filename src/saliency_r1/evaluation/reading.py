"""Read masks and predictions for an evaluation, and stop if the numbers would be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.mask_files import Doubt, MaskPicture, MaskValues, read_mask
from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.masks import THRESHOLD

LOOKED_AT = 40
"""The number of masks that are checked before anything else is done."""

_ZERO_AND_ONE = "zero and one"
_CAUSES = {
    Doubt.LOW: f"hold values, but none above {THRESHOLD}, where an object begins",
    _ZERO_AND_ONE: f"hold 0 and 1, and an object begins above {THRESHOLD}",
    Doubt.COLOURS: "are in colours (palettes, often), which stand for classes and not for brightness",
    Doubt.ALPHA: "have an alpha channel that tells another object than their brightness",
}
_REMEDIES = {
    Doubt.LOW: MaskValues.NONZERO,
    _ZERO_AND_ONE: MaskValues.NONZERO,
    Doubt.COLOURS: MaskValues.NONZERO,
    Doubt.ALPHA: MaskValues.ALPHA,
}


@dataclass(frozen=True)
class Reading:
    """Settings for reading masks and predictions.

    Attributes:
        masks: which values of a mask mean the object; None means grey, and stops if that is doubtful.
        predictions: likewise in a prediction.
        resize: whether predictions of another size are resized to their masks'.
    """

    masks: MaskValues | None = None
    predictions: MaskValues | None = None
    resize: bool = False

    def mask(self, source: bytes | Path, name: str) -> tuple[np.ndarray, str]:
        """Read a mask: bool (H, W), and what is doubtful about it, "" where nothing is."""
        picture = read_mask(source, name)
        values = picture.values(self.masks or MaskValues.GREY, name)
        return values > THRESHOLD, _doubt(picture) if self.masks is None else ""

    def prediction(self, path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, str, bool]:
        """Read a prediction: uint8 (H, W), what is doubtful about it, and whether it was resized.

        Args:
            path: the file's path.
            shape: height and width of its mask.

        Raises:
            ImageError: if it cannot be read, or has another shape and is not to be resized.
        """
        picture = read_mask(path)
        values = picture.values(self.predictions or MaskValues.GREY, str(path))
        doubt = _doubt(picture) if self.predictions is None else ""
        if doubt == Doubt.LOW:  # a method may be unsure of all
            doubt = ""
        if values.shape == shape:
            return values, doubt, False
        if not self.resize:
            raise ImageError(f"{path}: {values.shape}, expected {shape}")
        resized = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR)
        return np.asarray(resized), doubt, True

    def options(self) -> dict[str, str | bool | None]:
        """Give what makes a run another one."""
        return {"mask values": self.masks, "prediction values": self.predictions, "resize": self.resize}

    def notes(self, resized: int, total: int) -> list[str]:
        """Return what must be said beside the numbers."""
        said = []
        for values, what, option in (
            (self.masks, "Masks", "--mask-values"),
            (self.predictions, "Predictions", "--prediction-values"),
        ):
            if values is not None and values is not MaskValues.GREY:
                said.append(f"{what} were read by {_MEANINGS[values]} ({option} {values})")
        if resized:
            said.append(
                f"{resized} of {total} predictions had another size and were resized to their masks' "
                "(bilinear, --resize-predictions)"
            )
        return said


BY_BRIGHTNESS = Reading()
"""Grey values, where nothing speaks against them."""

_MEANINGS = {
    MaskValues.NONZERO: "whether a value is 0 or not",
    MaskValues.ALPHA: "their alpha",
}


def _doubt(picture: MaskPicture) -> str:
    if picture.is_zero_and_one and picture.doubt is Doubt.LOW:
        return _ZERO_AND_ONE
    return picture.doubt or ""


def look_ahead(paths: Sequence[Path], reading: Reading, *, predictions: bool = False) -> None:
    """Look at some masks or predictions before the work begins.

    Raises:
        SaliencyError: if most of them are doubtful, see `check_doubts`.
    """
    if (reading.predictions if predictions else reading.masks) is not None:
        return
    step = max(1, len(paths) // LOOKED_AT)
    chosen = paths[::step][:LOOKED_AT]
    found = []
    for path in chosen:
        try:
            doubt = _doubt(read_mask(path))
        except ImageError:  # told where it is scored
            doubt = ""
        found.append("" if predictions and doubt == Doubt.LOW else doubt)
    check_doubts(found, predictions=predictions)


def check_doubts(doubts: Iterable[str], *, predictions: bool = False) -> list[str]:
    """Stop where most masks or predictions are doubtful.

    Args:
        doubts: the doubt about each, "" where there is none.
        predictions: whether they are predictions.

    Returns:
        What has to be said of the few that are.

    Raises:
        SaliencyError: if more than half are; it names the cause and the option that settles it.
    """
    found = list(doubts)
    what = "predictions" if predictions else "masks"
    option = "--prediction-values" if predictions else "--mask-values"
    said = []
    for doubt, count in Counter(filter(None, found)).most_common():
        cause = _CAUSES[doubt]
        if 2 * count > len(found):
            raise SaliencyError(
                f"{count} of {len(found)} {what} {cause}: the numbers would be wrong. Read them with "
                f"{option} {_REMEDIES[doubt]}, or, if brightness is right, with {option} {MaskValues.GREY}"
            )
        said.append(f"{count} of {len(found)} {what} {cause}; they were read by their brightness")
    return said
