"""Let a policy answer a stream of questions: in batches, or concurrently if it can.

A policy on this machine gets one batch at a time. If it has a device of its own, it answers the next batch
while masks are made. A policy behind a server answers as many questions concurrently as it accepts: no
question waits for the slowest of a batch, and the server works while masks are made here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

from saliency_r1.errors import ImageError
from saliency_r1.policy.base import ConcurrentPolicy, Policy, PolicyOutput

if TYPE_CHECKING:
    from PIL import Image

    from saliency_r1.tasks import Task

T = TypeVar("T")

BATCH_PIXELS = 16_000_000
"""Maximum number of pixels in the images of a batch."""

PIXELS_UNDER_WAY = 100_000_000
"""Memory for the images of running questions and of waiting answers: 300 MB."""


@dataclass(frozen=True)
class Answered(Generic[T]):
    """A question with its answer.

    Attributes:
        item: the question's subject.
        output: the answer, or the error; None for a question without images, which is not asked.
        seconds: the batch's time divided by its questions, or the time from question to answer.
        more: whether the next answer is ready.
    """

    item: T
    output: PolicyOutput | ImageError | None
    seconds: float
    more: bool = False


def answers(
    policy: Policy,
    questions: Iterable[tuple[T, Sequence[Image.Image]]],
    task: Task,
    *,
    reasoning: bool,
    batch_questions: int,
    ahead: bool = False,
) -> Iterator[Answered[T]]:
    """Yield the answer to each question, in order; each question is read when its turn comes.

    Args:
        policy: the policy that answers.
        questions: the subject of each question, and its images (mode RGB).
        task: the task.
        reasoning: whether to reason first.
        batch_questions: maximum number of questions in a batch.
        ahead: whether the policy answers the next batch in a separate thread while the caller works on the
            last one; use it if the policy has another device than the caller's work.

    Raises:
        SaliencyError: if the policy fails at more than one question.
    """
    if isinstance(policy, ConcurrentPolicy):
        yield from _side_by_side(policy, questions, task, reasoning)
        return

    def respond(batch: list[tuple[T, Sequence[Image.Image]]]) -> list[Answered[T]]:
        start = perf_counter()
        asked = [images for _, images in batch if images]
        outputs = iter(policy.respond(asked, task, reasoning=reasoning) if asked else [])
        seconds = (perf_counter() - start) / len(batch)
        return [
            Answered(item, next(outputs) if images else None, seconds, more=number < len(batch))
            for number, (item, images) in enumerate(batch, 1)
        ]

    parts = batches(questions, batch_questions, lambda question: _pixels(question[1]))
    if not ahead:
        for batch in parts:
            yield from respond(batch)
            del batch
        return
    with ThreadPoolExecutor(1, "policy") as thread:
        last: Future[list[Answered[T]]] | None = None
        for batch in parts:
            next_one = thread.submit(respond, batch)
            if last is not None:
                yield from last.result()
            last = next_one
        if last is not None:
            yield from last.result()


def batches(items: Iterable[T], most: int, pixels: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield batches of at most `most` items and about `BATCH_PIXELS` pixels."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += pixels(item)
        del item  # otherwise it would stay in memory while the next one is read
        if len(batch) >= most or held >= BATCH_PIXELS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@dataclass
class _UnderWay(Generic[T]):
    """A question that a server is answering."""

    item: T
    pixels: int
    future: Future[PolicyOutput] | None
    began: float
    ended: float | None = None

    def end(self, future: object) -> None:
        self.ended = perf_counter()

    def answered(self, following: _UnderWay[T] | None) -> Answered[T]:
        if self.future is None:
            return Answered(self.item, None, 0.0)
        try:
            output: PolicyOutput | ImageError = self.future.result()
        except ImageError as error:
            output = error
        return Answered(
            self.item,
            output,
            (self.ended or perf_counter()) - self.began,
            more=following is not None and (following.future is None or following.future.done()),
        )


def _side_by_side(
    policy: ConcurrentPolicy,
    questions: Iterable[tuple[T, Sequence[Image.Image]]],
    task: Task,
    reasoning: bool,
) -> Iterator[Answered[T]]:
    """Hand over twice as many questions as the policy takes, so that a slow one does not delay the others."""
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
                yield under_way.popleft().answered(None)
        while under_way:
            yield under_way.popleft().answered(under_way[0] if under_way else None)
    finally:
        for left in under_way:
            if left.future is not None:
                left.future.cancel()


def _pixels(images: Sequence[Image.Image]) -> int:
    return sum(image.width * image.height for image in images)
