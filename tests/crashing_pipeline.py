"""A pipeline that ends its process over photos of one size, as a broken decoder or a lack of memory does."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
from PIL import Image

from saliency_r1 import SaliencyPipeline, Task
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.segmenters.base import Segmentation

DEADLY_SIZE = (31, 17)


class Deadly:
    """Policy and segmenter in one: everything in any photo is "the lot"."""

    name = "deadly"

    def respond(
        self, groups: Sequence[Sequence[Image.Image]], task: Task, *, reasoning: bool = True
    ) -> list[PolicyOutput]:
        if any(image.size == DEADLY_SIZE for group in groups for image in group):
            os.kill(os.getpid(), signal.SIGKILL)
        return [PolicyOutput("<think></think><answer><rg>the lot</rg></answer>", 0.5) for _ in groups]

    def encode(self, image: Image.Image) -> Image.Image:
        return image

    def segment(
        self, encoded: Image.Image, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        shape = (len(expressions), encoded.height, encoded.width)
        return Segmentation(np.ones(shape, np.float32), np.ones(len(expressions), np.float32))


def load_deadly() -> SaliencyPipeline:
    """For a job of workers."""
    return SaliencyPipeline(Deadly(), Deadly())
