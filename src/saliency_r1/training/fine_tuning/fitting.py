"""The steps in which a part of the nano policy's adapter is fitted on kept features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.progress import track


@dataclass(frozen=True)
class Fitting:
    """Steps of AdamW on pictures in a random order.

    Attributes:
        steps: number of steps, one batch of pictures each.
        batch_size: pictures a step.
        seed: random seed of the order.
    """

    steps: int
    batch_size: int = 32
    seed: int = 0

    def batches(self, pictures: int, title: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each step with the numbers of its pictures, none of them twice, and show the progress."""
        rng = np.random.default_rng(self.seed)
        for step in track(range(self.steps), title):
            yield step, rng.choice(pictures, min(self.batch_size, pictures), replace=False)
