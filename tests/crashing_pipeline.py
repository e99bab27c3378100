"""A pipeline that ends its process over photos of one size, as a broken decoder or a lack of memory does."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import numpy as np
from PIL import Image

from saliency_r1 import SaliencyPipeline, Task
from saliency_r1.policy.base import PolicyOutput
from stubs import PolicyStub, SegmenterStub

DEADLY_SIZE = (31, 17)


class Deadly(PolicyStub, SegmenterStub):
    """Policy and segmenter in one: everything in any photo is "the lot"."""

    name = "deadly"

    def __init__(self) -> None:
        PolicyStub.__init__(self)
        SegmenterStub.__init__(self)

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        if any(image.size == DEADLY_SIZE for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return PolicyOutput("<think></think><answer><rg>the lot</rg></answer>", [], confidence=0.5)

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        return np.ones(photo.shape[:2])


def load_deadly() -> SaliencyPipeline:
    """For a job of workers."""
    return SaliencyPipeline(Deadly(), Deadly())
