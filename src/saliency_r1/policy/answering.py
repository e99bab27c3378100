"""Letting a policy answer a stream of questions: in batches, or side by side where it can.

A policy of this machine gets a batch at a time. One that a server runs has as many questions under way as it
takes: no question waits for the slowest of a batch, and the server goes on while masks are made here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

from saliency_r1.errors import ImageError
from saliency_r1.policy.base import ConcurrentPolicy, Policy, PolicyOutput

if TYPE_CHECKING:
    from concurrent.futures import Future

    from PIL import Image

    from saliency_r1.tasks import Task

T = TypeVar("T")

BATCH_PIXELS = 16_000_000
"""A batch is closed once its images hold so many pixels."""

PIXELS_UNDER_WAY = 100_000_000
"""Of the images of questions that run side by side and of answers that wait to be taken: 300 MB."""


@dataclass(frozen=True)
class Answered(Generic[T]):
    """A question, answered.

    Attributes:
        item: what the question was about.
        output: the answer, or why there is none; None for a question without images, which is not asked.
        seconds: a batch's divided by its questions, or from where a question began to where its answer was
            there.
    """

    item: T
    output: PolicyOutput | ImageError | None
    seconds: float


def answers(
    policy: Policy,
    questions: Iterable[tuple[T, Sequence[Image.Image]]],
    task: Task,
    *,
    reasoning: bool,
    batch_questions: int,
) -> Iterator[Answered[T]]:
    """The answer to each question, in order, as they are there; questions are taken when their turn comes.

    Args:
        policy: what answers.
        questions: what each is about, and its images (mode RGB).
        task: what is asked.
        reasoning: whether to reason first.
        batch_questions: how many questions a batch has at most.

    Raises:
        SaliencyError: if the policy fails at more than one question.
    """
    if isinstance(policy, ConcurrentPolicy):
        yield from _side_by_side(policy, questions, task, reasoning)
        return
    for batch in _batches(questions, batch_questions):
        start = perf_counter()
        asked = [images for _, images in batch if images]
        outputs = iter(policy.respond(asked, task, reasoning=reasoning) if asked else [])
        seconds = (perf_counter() - start) / len(batch)
        for item, images in batch:
            yield Answered(item, next(outputs) if images else None, seconds)
        del batch, asked, item, images


def _batches(
    questions: Iterable[tuple[T, Sequence[Image.Image]]], batch_questions: int
) -> Iterator[list[tuple[T, Sequence[Image.Image]]]]:
    batch: list[tuple[T, Sequence[Image.Image]]] = []
    pixels = 0
    for item, images in questions:
        batch.append((item, images))
        pixels += _pixels(images)
        del item, images  # or they would stay while the next ones are read
        if len(batch) >= batch_questions or pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


@dataclass
class _UnderWay(Generic[T]):
    """A question that a server works on."""

    item: T
    pixels: int
    future: Future[PolicyOutput] | None
    began: float
    ended: float | None = None

    def end(self, future: object) -> None:
        self.ended = perf_counter()

    def answered(self) -> Answered[T]:
        if self.future is None:
            return Answered(self.item, None, 0.0)
        try:
            output: PolicyOutput | ImageError = self.future.result()
        except ImageError as error:
            output = error
        return Answered(self.item, output, (self.ended or perf_counter()) - self.began)


def _side_by_side(
    policy: ConcurrentPolicy,
    questions: Iterable[tuple[T, Sequence[Image.Image]]],
    task: Task,
    reasoning: bool,
) -> Iterator[Answered[T]]:
    """Twice as many questions as the policy takes are handed over, so that a slow one holds up no other."""
    under_way: deque[_UnderWay[T]] = deque()
    pixels = 0
    try:
        for item, images in questions:
            future = policy.submit(images, task, reasoning=reasoning) if images else None
            started = _UnderWay(item, _pixels(images), future, perf_counter())
            if future is not None:
                future.add_done_callback(started.end)
            under_way.append(started)
            pixels += started.pixels
            while under_way and (len(under_way) >= 2 * policy.concurrent or pixels >= PIXELS_UNDER_WAY):
                pixels -= under_way[0].pixels
                yield under_way.popleft().answered()
        while under_way:
            yield under_way.popleft().answered()
    finally:
        for left in under_way:
            if left.future is not None:
                left.future.cancel()


def _pixels(images: Sequence[Image.Image]) -> int:
    return sum(image.width * image.height for image in images)
