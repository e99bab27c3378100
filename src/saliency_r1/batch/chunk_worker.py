"""The work of a worker of any engine: read the photos of a chunk, run the pipeline, return rows."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, TypeAlias

from saliency_r1.batch.plan import CHUNK_PHOTOS
from saliency_r1.batch.rows import Row, error_row, result_row
from saliency_r1.batch.sources import Photo, read_photos
from saliency_r1.batch.storage import Folder
from saliency_r1.errors import ImageError, OutputError, SaliencyError, one_line
from saliency_r1.pictures.own_files import png_mark
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.result import SaliencyResult

LoadPipeline: TypeAlias = "Callable[[], SaliencyPipeline]"
"""Function that loads the pipeline of a worker; importable by name, with picklable arguments."""


@dataclass(frozen=True)
class Job:
    """The settings that all chunks of a run share.

    Attributes:
        load: loads the pipeline.
        task: the task.
        reasoning: whether the policy reasons.
        group_images: see `saliency_r1.cosod`.
        masks: folder for masks as PNG; None writes none.
        threads: number of threads of each network on a CPU; None keeps the runtime's own.
        accept_truncated: see `saliency_r1.images.load_image`.
    """

    load: LoadPipeline
    task: Task
    reasoning: bool
    group_images: int
    masks: str | None
    threads: int | None
    accept_truncated: bool = False


class ChunkWorker:
    """Holds the models and processes chunks.

    Args:
        job: the settings of the run.

    Raises:
        SaliencyError: if a model cannot be loaded.
    """

    def __init__(self, job: Job) -> None:
        if job.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(job.threads)  # what is loaded later reads it
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_num_threads(job.threads)
        self._job = job
        self._pipe = job.load()
        self._masks = Folder(job.masks) if job.masks is not None else None
        self.model = self._pipe.name

    def rows(self, photos: Sequence[Photo]) -> list[Row]:
        """Return the rows of the photos, in order; for co-saliency they are one group.

        A photo gets a row with an error if it cannot be read, if the models fail on it, or if its mask cannot
        be written.

        Raises:
            SaliencyError: if something else fails: an endpoint that does not answer, a full disk.
        """
        try:
            return self._rows(photos)
        except SaliencyError:
            raise
        except Exception as error:
            if len(photos) == 1 or self._job.task.spec.several_images:
                reason = f"{type(error).__name__}: {one_line(error)}"
                return [error_row(photo, self._job.task, reason) for photo in photos]
        return [row for photo in photos for row in self.rows([photo])]

    def _rows(self, photos: Sequence[Photo]) -> list[Row]:
        job = self._job
        rows: dict[Photo, Row] = {}
        waiting: deque[tuple[Photo, bytes]] = deque()

        def sources() -> Iterator[bytes]:
            for photo, content in read_photos(photos):
                if isinstance(content, Exception):
                    rows[photo] = error_row(photo, job.task, _reason(content))
                else:
                    waiting.append((photo, content))
                    yield content

        def on_error(source: object, error: ImageError) -> None:
            photo, content = next(item for item in waiting if item[1] is source)
            waiting.remove((photo, content))
            rows[photo] = error_row(photo, job.task, str(error).removeprefix("bytes: "))

        done = self._pipe.stream(
            sources(),
            job.task,
            reasoning=job.reasoning,
            batch_images=CHUNK_PHOTOS,
            group_images=job.group_images,
            on_error=on_error,
            accept_truncated=job.accept_truncated,
        )
        for result in done:
            photo, _ = waiting.popleft()
            rows[photo] = result_row(photo, result)
            if self._masks is not None:
                try:
                    self._write_masks(photo, result)
                except OutputError as error:
                    if error.ends_the_run:
                        raise
                    rows[photo] = error_row(photo, job.task, str(error))
        return [rows[photo] for photo in photos]

    def _write_masks(self, photo: Photo, result: SaliencyResult) -> None:
        from saliency_r1.overlay import to_grey

        assert self._masks is not None
        self._masks.write(f"{photo.stem}_mask.png", _png(to_grey(result.mask)))
        if result.task.spec.several_expressions:
            for number, one in enumerate(result.instances, start=1):
                self._masks.write(f"{photo.stem}_mask_{number}.png", _png(to_grey(one.mask)))


def _png(picture: Image.Image) -> bytes:
    content = BytesIO()
    picture.save(content, format="PNG", compress_level=4, pnginfo=png_mark())
    return content.getvalue()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({one_line(error)})"
    return f"cannot be read ({type(error).__name__}: {one_line(error)})"
