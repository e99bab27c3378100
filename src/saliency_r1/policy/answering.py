"""Letting a policy answer a stream of questions: in batches, or side by side where it can.

A policy of this machine gets a batch at a time; on a device of its own it goes on to the next one while masks
are made. One that a server runs has as many questions under way as it takes: no question waits for the
slowest of a batch, and the server goes on while masks are made here.
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
"""A batch is closed once its images hold so many pixels."""

PIXELS_UNDER_WAY = 100_000_000
"""Memory for the images of running questions and of waiting answers: 300 MB."""


@dataclass(frozen=True)
class Answered(Generic[T]):
    """A question, answered.

    Attributes:
        item: what the question was about.
        output: the answer, or why there is none; None for a question without images, which is not asked.
        seconds: a batch's divided by its questions, or from where a question began to where its answer was
            there.
        more: whether the next answer is there already.
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
    """The answer to each question, in order, as they are there; questions are taken when their turn comes.

    Args:
        policy: what answers.
        questions: what each is about, and its images (mode RGB).
        task: what is asked.
        reasoning: whether to reason first.
        batch_questions: how many questions a batch has at most.
        ahead: whether the policy answers the next batch, in a thread of its own, while the caller works on
            the last one; for a policy on another device than the caller's work.

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
    """Batches of at most `most` items, closed once they hold `BATCH_PIXELS`."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += pixels(item)
        del item  # or it would stay while the next one is read
        if len(batch) >= most or held >= BATCH_PIXELS:
            yield batch
            batch, held = [], 0
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
                yield under_way.popleft().answered(None)
        while under_way:
            yield under_way.popleft().answered(under_way[0] if under_way else None)
    finally:
        for left in under_way:
            if left.future is not None:
                left.future.cancel()


def _pixels(images: Sequence[Image.Image]) -> int:
    return sum(image.width * image.height for image in images)
