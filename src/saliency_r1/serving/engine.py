"""One thread owns the model and answers the waiting requests in batches."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Any

from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import ImageError
from saliency_r1.serving.metrics import Metrics
from saliency_r1.serving.problems import Problem
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.result import SaliencyResult

RENDERERS = 2
_RENDERED_AT_ONCE = 4
_LOADING_SECONDS = 5
_DELIVERING_SECONDS = 0.2  # the page's answers use streams of their own
_STOPPING_SECONDS = 2


class State(StrEnum):
    """The state of an engine."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Picture:
    """A picture of a request.

    Attributes:
        name: its name in errors and files.
        read: returns its content when its turn comes.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(eq=False)
class Work:
    """The work of one request.

    Attributes:
        pictures: the pictures; in CoSOD one group.
        task: see `saliency_r1.tasks`.
        render: makes the answer's part from each result. Results are large and not kept.
        reasoning: whether the policy reasons first.
        group_images: for CoSOD, number of pictures that the policy sees at a time.
        phrase: what to find in each picture; the policy is not asked then.
    """

    pictures: Sequence[Picture]
    task: Task
    render: Callable[[Picture, SaliencyResult], Any]
    reasoning: bool = True
    group_images: int = GROUP_IMAGES
    phrase: str | None = None
    future: Future[list[Any]] = field(default_factory=Future)
    rendered: dict[int, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def key(self) -> tuple[Task, bool, str | None]:
        """The key of the work; works with equal keys can be done in one batch."""
        return self.task, self.reasoning, self.phrase

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless it is already answered or dropped."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def add(self, index: int, rendered: Any) -> None:
        """Add the part of picture `index`; with the last part the work is finished."""
        with self.lock:
            self.rendered[index] = rendered
            if len(self.rendered) == len(self.pictures):
                with suppress(InvalidStateError):
                    self.future.set_result([self.rendered[place] for place in range(len(self.pictures))])


class Engine:
    """Accept a limited number of requests, and answer those that wait together as one batch.

    The oldest request is served first, together with others for the same task and kind of reasoning, up to
    `batch_images` pictures. A CoSOD group is served alone. Pictures are decoded shortly before, and a few
    threads beside the model make the answers. So memory is bounded by one batch and a few results, however
    many requests wait.

    Args:
        load: loads the pipeline, in the engine's own thread.
        waiting: maximum number of accepted requests.
        batch_images: maximum number of pictures in a batch.
        accept_truncated: whether damaged pictures that end too early are read as far as they go.

    Attributes:
        state: see `State`.
        error: why the model could not be loaded.
        metrics: the counters.
        stopping: set when it should stop.
        emptied: set when all accepted requests are answered after that.
    """

    def __init__(
        self,
        load: Callable[[], SaliencyPipeline],
        *,
        waiting: int,
        batch_images: int = 8,
        accept_truncated: bool = False,
    ) -> None:
        self.state = State.LOADING
        self.error: Exception | None = None
        self.pipe: SaliencyPipeline | None = None
        self.metrics = Metrics(lambda: self.taken, lambda: self.state == State.READY)
        self.taken = 0
        self.stopping, self.emptied = asyncio.Event(), asyncio.Event()
        self.on_failure: Callable[[], None] = lambda: None
        self._load = load
        self._most = waiting
        self._batch_images = batch_images
        self._accept_truncated = accept_truncated
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._seconds_a_picture = 0.1
        self._renderers = ThreadPoolExecutor(RENDERERS, "render")
        self._rendering = threading.Semaphore(_RENDERED_AT_ONCE)
        self._thread = threading.Thread(target=self._live, name="model", daemon=True)

    def start(self) -> None:
        """Load the model and start to work, in the background."""
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place among the accepted requests until the answer is sent.

        Raises:
            Problem: 503 if the model is not loaded, 429 if no place is free.
        """
        if self.state == State.LOADING:
            raise Problem(503, "the model is being loaded", "loading", retry_after=_LOADING_SECONDS)
        if self.state == State.STOPPING:
            raise Problem(503, "the server is stopping", "stopping", retry_after=_LOADING_SECONDS)
        if self.state == State.FAILED:
            raise Problem(503, "the model could not be loaded", "no-model", retry_after=60)
        with self._changed:
            if self.taken >= self._most:
                wait = ceil(self._pictures_waiting() * self._seconds_a_picture)
                raise Problem(
                    429,
                    f"{self.taken} requests wait already, which is the limit: come again",
                    "busy",
                    retry_after=min(60, max(1, wait)),
                )
            self.taken += 1
        try:
            yield
        finally:
            with self._changed:
                self.taken -= 1

    async def answer(self, work: Work, deadline: float) -> list[Any]:
        """Return what `work.render` made from each picture, in order.

        Args:
            work: the work of a request that holds a place.
            deadline: the event loop's time by which the answer must be ready.

        Raises:
            Problem: 504 at the deadline; 422 if a picture cannot be decoded.
        """
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.wrap_future(work.future)
        except TimeoutError:
            raise Problem(
                504, "the answer took longer than the limit; ask for less, or later", "late"
            ) from None

    async def drained(self) -> None:
        """Accept no more requests, and wait until the accepted ones are answered."""
        if self.state != State.FAILED:
            self.state = State.STOPPING
        self.stopping.set()
        while self.taken:
            await asyncio.sleep(0.02)
        await asyncio.sleep(_DELIVERING_SECONDS)
        self.emptied.set()

    def stop(self) -> None:
        """End the engine's threads; a batch without clients gets some seconds to end.

        Loading a model cannot be interrupted, and this does not wait for it.
        """
        with self._changed:
            if self.state != State.FAILED:
                self.state = State.STOPPING
            self._changed.notify()
        if self.pipe is not None:
            self._thread.join(_STOPPING_SECONDS)
        self._renderers.shutdown(wait=False)

    @property
    def is_busy(self) -> bool:
        """Whether its thread still loads or works; torch would then abort at the interpreter's end."""
        return self._thread.is_alive()

    def _live(self) -> None:
        try:
            pipe = self._load()
        except Exception as error:
            self.error, self.state = error, State.FAILED
            self.on_failure()
            return
        self.pipe = pipe
        if self.state == State.LOADING:
            self.state = State.READY
        while batch := self._next_batch():
            start = time.perf_counter()
            count = sum(len(work.pictures) for work in batch)
            self._do(pipe, batch)
            seconds = time.perf_counter() - start
            self._seconds_a_picture += 0.2 * (seconds / count - self._seconds_a_picture)
            self.metrics.batch_images.observe(count)
            self.metrics.model_seconds.inc(seconds)
            del batch

    def _next_batch(self) -> list[Work]:
        """Return the oldest work and those of its batch; none if the engine is stopped and nothing waits."""
        with self._changed:
            while True:
                self._waiting = deque(work for work in self._waiting if not work.future.done())
                if self._waiting:
                    break
                if self.state == State.STOPPING and not self.taken:
                    return []
                self._changed.wait(1.0)
            first = self._waiting[0]
            batch: list[Work] = []
            left, count = deque[Work](), 0
            for work in self._waiting:
                alone = work.task.spec.several_images and work is not first
                fits = not batch or count + len(work.pictures) <= self._batch_images
                if work.key == first.key and fits and not alone:
                    batch.append(work)
                    count += len(work.pictures)
                else:
                    left.append(work)
            self._waiting = left
            return batch

    def _do(self, pipe: SaliencyPipeline, batch: Sequence[Work]) -> None:
        """Answer a batch; if it fails, answer each work alone, so that one does not spoil the others."""
        grouped = batch[0].task.spec.several_images
        phrase = batch[0].phrase
        try:
            if phrase is not None:
                pipe = pipe.finding(phrase)
            if grouped:
                self._do_group(pipe, batch[0])
            else:
                self._do_singles(pipe, batch)
        except Exception as error:
            if len(batch) > 1:
                for work in batch:
                    self._do(pipe, [work])
                return
            if not isinstance(error, Problem) and not batch[0].future.done():
                traceback.print_exc()
            batch[0].fail(error)

    def _do_group(self, pipe: SaliencyPipeline, work: Work) -> None:
        contents = [picture.read() for picture in work.pictures]

        def refuse(source: object, error: ImageError) -> None:
            index = next(index for index, content in enumerate(contents) if content is source)
            raise broken(work.pictures[index].name, index, error)

        results = pipe.stream(
            contents,
            work.task,
            reasoning=work.reasoning,
            group_images=work.group_images,
            on_error=refuse,
            accept_truncated=self._accept_truncated,
        )
        for index, result in enumerate(results):
            self._hand_over(work, index, result)
            del result
            if work.future.done():
                return

    def _do_singles(self, pipe: SaliencyPipeline, batch: Sequence[Work]) -> None:
        read: deque[tuple[Work, int]] = deque()

        def contents() -> Iterator[bytes]:
            for work in batch:
                for index, picture in enumerate(work.pictures):
                    if work.future.done():  # dropped, or one of its pictures is broken
                        break
                    try:
                        content = picture.read()
                    except (OSError, ValueError) as error:  # its client has left, and the file is closed
                        work.fail(error)
                        break
                    read.append((work, index))
                    yield content

        def refuse(source: object, error: ImageError) -> None:
            work, index = read.pop()  # the one that was read last
            work.fail(broken(work.pictures[index].name, index, error))

        task, reasoning, _ = batch[0].key
        results = pipe.stream(
            contents(),
            task,
            reasoning=reasoning,
            batch_images=self._batch_images,
            on_error=refuse,
            accept_truncated=self._accept_truncated,
        )
        for result in results:
            work, index = read.popleft()
            self._hand_over(work, index, result)
            del result

    def _hand_over(self, work: Work, index: int, result: SaliencyResult) -> None:
        """Render a result beside the model, as soon as one of the few threads for that is free."""
        self.metrics.images.labels(work.task.value).inc()
        if not work.future.done():
            self._rendering.acquire()
            self._renderers.submit(self._render, work, index, result)

    def _render(self, work: Work, index: int, result: SaliencyResult) -> None:
        try:
            work.add(index, work.render(work.pictures[index], result))
        except Exception as error:
            traceback.print_exc()
            work.fail(error)
        finally:
            self._rendering.release()

    def _pictures_waiting(self) -> int:
        return self._batch_images + sum(len(work.pictures) for work in self._waiting)


def broken(name: str, index: int, error: ImageError) -> Problem:
    """Return the answer to a picture that cannot be read.

    Args:
        name: what the answer calls the picture.
        index: its place in the request, from 0.
        error: why.
    """
    reason = str(error).removeprefix("bytes: ").removeprefix(f"{name}: ")
    return Problem(422, f"{name}: {reason}", "broken-picture", picture=name, index=index)
