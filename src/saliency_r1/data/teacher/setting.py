"""Settings of a teacher network, see `saliency_r1.data.teacher.network`: preprocessing and output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from saliency_r1.errors import SaliencyError

RECORD = "teacher.json"
"""The file in a folder of masks that says which teacher made them, and how."""


class Scaling(StrEnum):
    """The divisor of a photo's values before they are normalised."""

    MAX = "max"
    """The largest value of the photo, as U²-Net does."""
    BYTE = "255"
    """255, as most networks do."""


class Stretch(StrEnum):
    """The way from an output to a saliency of 0 to 1."""

    MINMAX = "minmax"
    """Its least value becomes 0, its largest 1, as U²-Net does."""
    SIGMOID = "sigmoid"
    """It holds logits."""
    NONE = "none"
    """It is a probability already; values outside 0 to 1 are cut."""


@dataclass(frozen=True)
class TeacherSetting:
    """Preprocessing of photos, and the output that is the mask.

    Attributes:
        size: pixels of a side of the square input.
        mean: subtracted from red, green, blue after scaling.
        std: divisors after that.
        scaling: first divisor of a photo's values.
        output: index of the network's output that is the saliency map.
        stretch: how that output is mapped to 0 to 1.

    Raises:
        SaliencyError: if a size or an index is invalid, or a standard deviation is not above 0.
    """

    size: int = 320
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scaling: Scaling = Scaling.MAX
    output: int = 0
    stretch: Stretch = Stretch.MINMAX

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SaliencyError(f"size {self.size}: expected at least 1 pixel")
        if self.output < 0:
            raise SaliencyError(f"output {self.output}: expected an index from 0 on")
        if min(self.std) <= 0:
            raise SaliencyError(f"std {' '.join(map(str, self.std))}: expected three values above 0")
