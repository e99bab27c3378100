"""The one path from images to masks: policy, response text, expressions, segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias, overload

import numpy as np
from PIL import Image

from saliency_r1.device import choose_device
from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.images import FoundImage, load_image
from saliency_r1.policy.base import Policy, PolicyOutput
from saliency_r1.response import Response, parse_lenient
from saliency_r1.result import Instance, SaliencyResult
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.tasks import Task

ImageSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | FoundImage
"""A path, the content of an image file, a PIL image, an array, or what `find_images` found."""

BATCH_IMAGES = 8
BATCH_PIXELS = 16_000_000
SAME_INSTANCE_IOU = 0.9


def expected_quality(policy_confidence: float | None, mask_scores: Sequence[float]) -> float | None:
    """How good the masks of an answer are expected to be, in [0, 1]: the mean of the segmenter's scores.

    Without a mask (nothing is salient) it is the policy's confidence; None where the policy tells none. On
    held-out photos the scores alone foretell the IoU better than their product with the policy's confidence
    does: see benchmarks/RESULTS.md.
    """
    return float(np.mean(mask_scores)) if mask_scores else policy_confidence


@dataclass
class _Loaded:
    """An image that was read, and the seconds that took."""

    source: ImageSource
    image: Image.Image
    seconds: float

    @property
    def path(self) -> str | None:
        source = self.source.path if isinstance(self.source, FoundImage) else self.source
        return str(source) if isinstance(source, str | Path) else None

    @property
    def name(self) -> str:
        if isinstance(self.source, FoundImage):
            return self.source.stem
        return Path(self.path).stem if self.path else "image"


class SaliencyPipeline:
    """Images and a task in, masks and words out.

    Args:
        policy: writes the response.
        segmenter: turns each of its expressions into a mask.
        device: where both run, for the record.

    Example:
        >>> pipe = SaliencyPipeline.from_pretrained()
        >>> result = pipe("dog.jpg")  # doctest: +SKIP
        >>> result.reasoning, result.expressions, result.mask.shape  # doctest: +SKIP
        ('It is large and sharp ...', ('the brown dog',), (300, 400))
    """

    def __init__(self, policy: Policy, segmenter: Segmenter, device: str = "cpu") -> None:
        self.policy = policy
        self.segmenter = segmenter
        self.device = device

    @classmethod
    def from_pretrained(
        cls,
        policy: str | Path | Policy | None = None,
        segmenter: str | Path | Segmenter | None = None,
        *,
        device: str = "auto",
    ) -> SaliencyPipeline:
        """Load both models onto one device.

        Args:
            policy: a folder or a hub name of an image-text-to-text model, a policy that is already there, or
                None for the embedded nano policy.
            segmenter: a folder of a nano segmenter, a segmenter that is already there, or None for the
                embedded one.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

        Raises:
            SaliencyError: if a model cannot be loaded, or the machine has no such device.
        """
        place = str(choose_device(device))
        if policy is None or isinstance(policy, str | Path):
            from saliency_r1.policy.transformers import TransformersPolicy

            policy = TransformersPolicy.from_pretrained(policy, device=place)
        if segmenter is None or isinstance(segmenter, str | Path):
            from saliency_r1.segmenters.nano import NanoSegmenter

            segmenter = NanoSegmenter.from_pretrained(segmenter, device=place)
        return cls(policy, segmenter, place)

    @property
    def name(self) -> str:
        """How results call the two models together."""
        names = dict.fromkeys((self.policy.name, self.segmenter.name))
        return " + ".join(names)

    @overload  # a str is a sequence of str, to the type checker alone
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageSource, task: Task | str = ..., *, reasoning: bool = ...
    ) -> SaliencyResult: ...

    @overload
    def __call__(
        self, images: Sequence[ImageSource], task: Task | str = ..., *, reasoning: bool = ...
    ) -> list[SaliencyResult]: ...

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource],
        task: Task | str = Task.SOD,
        *,
        reasoning: bool = True,
    ) -> SaliencyResult | list[SaliencyResult]:
        """What stands out in an image, or in each of a list; for CoSOD the list is one group.

        Args:
            images: a path, the bytes of an image file, a PIL image or an array; or a list of such.
            task: `sod`, `sis` or `cosod`.
            reasoning: whether the policy reasons before it answers. Without it the answer comes sooner.

        Returns:
            A result for an image, a list of results for a list.

        Raises:
            ImageError: if an image cannot be read.
            SaliencyError: if there is no such task, or CoSOD is asked of one image that is not in a list.
        """
        if isinstance(images, list | tuple):
            return list(self.stream(images, task, reasoning=reasoning))
        if Task.parse(task).spec.several_images:
            raise SaliencyError(f"the task {str(task)!r} is about a group of images: give a list of them")
        return next(self.stream([images], task, reasoning=reasoning))  # type: ignore[list-item]

    def stream(
        self,
        images: Iterable[ImageSource],
        task: Task | str = Task.SOD,
        *,
        reasoning: bool = True,
        batch_images: int = BATCH_IMAGES,
        on_error: Callable[[ImageSource, ImageError], None] | None = None,
    ) -> Iterator[SaliencyResult]:
        """The results of any number of images, in order, as they are done.

        Images are read when their turn comes, at most `batch_images` of them and about 16 megapixels at a
        time, so that memory stays bounded. Only for CoSOD, where they are one group, all are read first.

        Args:
            images: see `__call__`.
            task: see `__call__`.
            reasoning: see `__call__`.
            batch_images: how many the policy sees at once.
            on_error: called with an image that cannot be read and why, and the image is left out. Without it
                the error is raised.

        Raises:
            ImageError: if an image cannot be read and there is no `on_error`.
            SaliencyError: if there is no such task.
        """
        task = Task.parse(task)
        return self._stream(images, task, reasoning, batch_images, on_error)

    def _stream(
        self,
        images: Iterable[ImageSource],
        task: Task,
        reasoning: bool,
        batch_images: int,
        on_error: Callable[[ImageSource, ImageError], None] | None,
    ) -> Iterator[SaliencyResult]:
        loaded = _load(images, on_error)
        if task.spec.several_images:
            group = list(loaded)
            if group:
                yield from self._answer([group], task, reasoning)
            return
        for batch in _batches(loaded, batch_images):
            yield from self._answer([[item] for item in batch], task, reasoning)

    def _answer(
        self, questions: Sequence[Sequence[_Loaded]], task: Task, reasoning: bool
    ) -> Iterator[SaliencyResult]:
        """Ask all questions at once, then segment the images of each."""
        start = perf_counter()
        outputs = self.policy.respond(
            [[item.image for item in question] for question in questions], task, reasoning=reasoning
        )
        images = sum(len(question) for question in questions)
        policy_seconds = (perf_counter() - start) / images
        for question, output in zip(questions, outputs, strict=True):
            response = parse_lenient(output.text, task)
            for item in question:
                yield self._result(item, task, output, response, policy_seconds)

    def _result(
        self, item: _Loaded, task: Task, output: PolicyOutput, response: Response, policy_seconds: float
    ) -> SaliencyResult:
        start = perf_counter()
        instances = self._segment(item.image, response.expressions)
        if task.spec.several_expressions:
            instances = distinct_instances(instances)
        segmenter_seconds = perf_counter() - start
        return SaliencyResult(
            name=item.name,
            source=item.path,
            image=item.image,
            task=task,
            text=output.text,
            reasoning=response.reasoning,
            expressions=response.expressions,
            instances=tuple(instances),
            confidence=expected_quality(output.confidence, [instance.score for instance in instances]),
            model=self.name,
            seconds={
                "policy": policy_seconds,
                "segmenter": segmenter_seconds,
                "total": item.seconds + policy_seconds + segmenter_seconds,
            },
            policy_confidence=output.confidence,
        )

    def _segment(self, image: Image.Image, expressions: Sequence[str]) -> list[Instance]:
        if not expressions:
            return []
        found = self.segmenter.segment(self.segmenter.encode(image), expressions)
        return [
            Instance(expression=expression, mask=mask, score=float(score))
            for expression, mask, score in zip(expressions, found.probabilities, found.scores, strict=True)
        ]


def distinct_instances(instances: Sequence[Instance]) -> list[Instance]:
    """The instances without those that are empty or that another one of a higher score nearly equals.

    Two masks nearly equal each other if their IoU is over 0.9 (both taken at 0.5). The order stays.
    """
    kept: list[tuple[int, np.ndarray]] = []
    for index in sorted(range(len(instances)), key=lambda index: -instances[index].score):
        mask = instances[index].mask >= 0.5
        if mask.any() and all(_iou(mask, other) <= SAME_INSTANCE_IOU for _, other in kept):
            kept.append((index, mask))
    return [instances[index] for index in sorted(index for index, _ in kept)]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two masks, bool (H, W), not both empty."""
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def _load(
    images: Iterable[ImageSource], on_error: Callable[[ImageSource, ImageError], None] | None
) -> Iterator[_Loaded]:
    for source in images:
        start = perf_counter()
        try:
            image = load_image(source.path if isinstance(source, FoundImage) else source)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(source, error)
            continue
        yield _Loaded(source, image, perf_counter() - start)


def _batches(loaded: Iterable[_Loaded], batch_images: int) -> Iterator[list[_Loaded]]:
    """Groups of at most `batch_images`, closed once they hold `BATCH_PIXELS`."""
    batch: list[_Loaded] = []
    pixels = 0
    for item in loaded:
        batch.append(item)
        pixels += item.image.width * item.image.height
        if len(batch) >= batch_images or pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
