"""Stand-ins for policies and segmenters: a test says what is answered, and what is found in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from saliency_r1.policy.base import PolicyOutput
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.tasks import Task


class PolicyStub:
    """A policy that answers each question by `answer`; `batches` holds how many images each question had."""

    name = "stub"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        self.batches.append([len(images) for images in batch])
        return [self.answer(images, task, reasoning) for images in batch]

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        raise NotImplementedError


class SegmenterStub:
    """A segmenter that finds each expression by `find`; `asked` holds all expressions, `encoded` a count."""

    name = "stub"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.encoded = 0

    def encode(self, image: Image.Image) -> Any:
        self.encoded += 1
        return np.asarray(image, np.int16)

    def segment(self, encoded: Any, expressions: Sequence[str], *, instances: bool = False) -> Segmentation:
        self.asked += expressions
        masks = [np.asarray(self.find(encoded, text), np.float32) for text in expressions]
        scores = [self.score(text) for text in expressions]
        return Segmentation(np.stack(masks), np.array(scores, np.float32))

    def find(self, photo: Any, expression: str) -> np.ndarray:
        raise NotImplementedError

    def score(self, expression: str) -> float:
        return 1.0
