"""The one path from images to masks: policy, response text, expressions, segmenter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TypeAlias, overload

import numpy as np

from saliency_r1.catalogue import NANO
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.cosod_path import ask_group, settle
from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.images import LoadedImage
from saliency_r1.pictures.image_sources import ImageSource, LoadedSource, OnError, load_sources, rereadable
from saliency_r1.policy.answering import answers, batches
from saliency_r1.policy.base import Policy, PolicyOutput
from saliency_r1.policy.given import GivenPhrase
from saliency_r1.policy.load_policy import load_policy
from saliency_r1.policy.options import PolicyOptions, is_endpoint
from saliency_r1.response import Response, parse_lenient
from saliency_r1.result import Instance, SaliencyResult
from saliency_r1.runtime import Runtime
from saliency_r1.segmenters.base import (
    Encoded,
    Segmentation,
    Segmenter,
    answer_texts,
    encode_many,
    salient_texts,
    segment_many,
)
from saliency_r1.segmenters.load_segmenter import open_segmenter
from saliency_r1.sis import scored_instances, visible_instances
from saliency_r1.tasks import Task
from saliency_r1.wording import UNNAMED

_Masks: TypeAlias = tuple[Encoded, Segmentation]
"""An image in the segmenter's encoding, and the masks of its expressions."""

SEGMENTER_FOLDER = "segmenter"
"""The folder of a nano segmenter inside a policy's folder."""

_SEGMENTER_FILES = ("config.json", "model.safetensors")

BATCH_IMAGES = 8
_INVISIBLE = PolicyOutput(
    "<think>The picture is transparent throughout.</think><answer></answer>", [], confidence=1.0
)
"""The answer to a fully transparent picture."""


def expected_quality(policy_confidence: float | None, mask_scores: Sequence[float]) -> float | None:
    """Return the confidence of an answer, in [0, 1]: the expected IoU, mean over its masks.

    The scores are the segmenter's; in SOD and SIS a named object that is not found has 0. Without an
    expression (nothing is salient) it is the policy's confidence, or None if unknown. benchmarks/RESULTS.md
    compares the scores with their product with the policy's confidence.
    """
    return float(np.mean(mask_scores)) if mask_scores else policy_confidence


@dataclass(frozen=True)
class _Answer:
    """The policy's answer to an image: its output, the parsed response, and the seconds until then.

    `stands_out`: whether the shared object of a group is what stands out in it.
    """

    output: PolicyOutput
    response: Response
    policy_seconds: float
    seconds: float
    stands_out: bool = False


class SaliencyPipeline:
    """Find what stands out in images: it takes images and a task, and returns masks and words.

    Args:
        policy: the model that writes the response.
        segmenter: the model that turns each expression into a mask.
        device: the device of both, for the record.

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
        policy_options: PolicyOptions | None = None,
        segmenter_device: str | None = None,
        segmenter_dtype: str = "auto",
        runtime: Runtime | str = Runtime.AUTO,
    ) -> SaliencyPipeline:
        """Load both models, onto one device unless the segmenter has its own.

        Args:
            policy: a folder or a hub name of an image-text-to-text model, `openai:URL#MODEL` for one behind
                an OpenAI-compatible endpoint, a loaded policy, or None or `nano` for the embedded nano
                policy.
            segmenter: a name, `NAME:WEIGHTS` for weights other than the published ones, the folder of a nano
                segmenter, a loaded segmenter, or None for the one in the policy's folder, otherwise the
                embedded one; see `saliency_r1.segmenters.load_segmenter`.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            policy_options: settings for loading and asking a policy that is named.
            segmenter_device: device of a segmenter that is named, if it differs.
            segmenter_dtype: type of its weights: `auto`, `float32`, `bfloat16` or `float16`.
            runtime: library that runs the models that are named: `torch`, `onnx` or `auto`; see
                `saliency_r1.runtime.Runtime`.

        Raises:
            SaliencyError: if a model cannot be loaded, or the machine has no such device.
        """
        runtime = Runtime.parse(runtime)
        options = policy_options or PolicyOptions()
        if policy == NANO and not Path(NANO).exists():
            policy = None
        source = policy
        if policy is None or isinstance(policy, str | Path):
            policy = load_policy(policy, device=device, options=options, runtime=runtime)
        if segmenter is None and isinstance(source, str | Path) and not is_endpoint(source):
            segmenter = _segmenter_beside(str(source), options.revision)
        if segmenter is None or isinstance(segmenter, str | Path):
            segmenter = open_segmenter(
                segmenter, segmenter_device or device, segmenter_dtype, runtime=runtime
            )
        places = [getattr(model, "device", None) for model in (policy, segmenter)]
        return cls(policy, segmenter, next((str(place) for place in places if place is not None), "cpu"))

    @property
    def name(self) -> str:
        """The name of both models in results."""
        names = dict.fromkeys((self.policy.name, self.segmenter.name))
        return " + ".join(names)

    def finding(self, phrase: str) -> SaliencyPipeline:
        """Return a pipeline that finds what you name, with the same segmenter; the policy is not asked.

        Args:
            phrase: what to find, such as `the cat on the left`.

        Raises:
            SaliencyError: if the phrase is empty, too long or holds a tag.

        Example:
            >>> pipe.finding("the cat on the left")("cats.jpg").mask  # doctest: +SKIP
        """
        return SaliencyPipeline(GivenPhrase(phrase), self.segmenter, self.device)

    @overload  # only for the type checker: a str is a sequence of str
    def __call__(  # type: ignore[overload-overlap]
        self,
        images: ImageSource,
        task: Task | str = ...,
        *,
        reasoning: bool = ...,
        group_images: int = ...,
        accept_truncated: bool = ...,
    ) -> SaliencyResult: ...

    @overload
    def __call__(
        self,
        images: Sequence[ImageSource],
        task: Task | str = ...,
        *,
        reasoning: bool = ...,
        group_images: int = ...,
        accept_truncated: bool = ...,
    ) -> list[SaliencyResult]: ...

    def __call__(
        self,
        images: ImageSource | Sequence[ImageSource],
        task: Task | str = Task.SOD,
        *,
        reasoning: bool = True,
        group_images: int = GROUP_IMAGES,
        accept_truncated: bool = False,
    ) -> SaliencyResult | list[SaliencyResult]:
        """Find what stands out in an image, or in each image of a list; for CoSOD the list is one group.

        Args:
            images: a path, the bytes of an image file, a file object, a PIL image, an array or a tensor; or a
                list of them.
            task: `sod`, `sis` or `cosod`.
            reasoning: whether the policy reasons before it answers, which takes longer.
            group_images: for CoSOD, number of images that the policy sees at a time; see
                `saliency_r1.cosod`.
            accept_truncated: whether to read files that end too early as far as they go, with a warning.

        Returns:
            A result for an image, or a list of results with unique names for a list. The list holds all
            images and masks; for many of them use `stream`.

        Raises:
            ImageError: if an image cannot be read.
            SaliencyError: if there is no such task, if CoSOD gets an image that is not in a list, or if
                `group_images` is less than 2.
        """
        if isinstance(images, list | tuple):
            return list(
                self.stream(
                    images,
                    task,
                    reasoning=reasoning,
                    group_images=group_images,
                    accept_truncated=accept_truncated,
                )
            )
        if Task.parse(task).spec.several_images:
            raise SaliencyError(f"the task {str(task)!r} is about a group of images: give a list of them")
        one: list[ImageSource] = [images]  # type: ignore[list-item]
        return next(self.stream(one, task, reasoning=reasoning, accept_truncated=accept_truncated))

    def stream(
        self,
        images: Iterable[ImageSource],
        task: Task | str = Task.SOD,
        *,
        reasoning: bool = True,
        batch_images: int = BATCH_IMAGES,
        group_images: int = GROUP_IMAGES,
        accept_truncated: bool = False,
        on_error: OnError | None = None,
    ) -> Iterator[SaliencyResult]:
        """Yield the results of any number of images, in order, as they are finished.

        Images are read when their turn comes, at most `batch_images` and about 16 megapixels at a time, so
        memory is bounded. In CoSOD the images are one group and each is read twice: for the policy, with
        `group_images` and at most 16 megapixels at a time, and again for its mask. A policy behind a server
        answers several questions concurrently, see `saliency_r1.policy.answering`.

        A result's name is the stem of its path, or `image`. A second result of the same name gets `-2`, and
        so on.

        Args:
            images: see `__call__`.
            task: see `__call__`.
            reasoning: see `__call__`.
            batch_images: number of questions that the policy answers at once.
            group_images: see `__call__`.
            accept_truncated: see `__call__`.
            on_error: called with an image that cannot be read or that the policy's server refuses, and the
                error; the image is skipped. Without it the error is raised.

        Raises:
            ImageError: if an image cannot be read, or is refused, and there is no `on_error`.
            SaliencyError: if there is no such task, or `group_images` is less than 2.
        """
        task = Task.parse(task)
        if group_images < 2:
            raise SaliencyError(f"group_images is {group_images}: give at least 2, one image shares nothing")

        def load(sources: Iterable[ImageSource]) -> Iterator[LoadedSource]:
            return load_sources(sources, on_error, accept_truncated)

        if task.spec.several_images:
            sources = list(map(rereadable, images))
            return self._stream_group(sources, task, reasoning, batch_images, group_images, load)
        return self._stream(load(images), task, reasoning, batch_images, on_error)

    def _stream(
        self,
        loaded: Iterator[LoadedSource],
        task: Task,
        reasoning: bool,
        batch_images: int,
        on_error: OnError | None,
    ) -> Iterator[SaliencyResult]:
        questions = ((item, [] if item.picture.invisible else [item.image]) for item in loaded)
        waiting: list[tuple[LoadedSource, _Answer]] = []
        for one in answers(
            self.policy,
            questions,
            task,
            reasoning=reasoning,
            batch_questions=batch_images,
            ahead=self._on_two_devices,
        ):
            output = one.output or _INVISIBLE
            if isinstance(output, ImageError):
                error = type(output)(f"{one.item.path or one.item.name}: {output}")
                if on_error is None:
                    raise error
                on_error(one.item.source, error)
            else:
                answer = _Answer(output, parse_lenient(output.text, task), one.seconds, one.seconds)
                waiting.append((one.item, answer))
            if not one.more or len(waiting) >= batch_images:
                yield from self._results(waiting, task)
                waiting = []
        yield from self._results(waiting, task)

    @property
    def _on_two_devices(self) -> bool:
        """Whether policy and segmenter run on different devices, so that they can work at the same time."""
        devices = [getattr(model, "device", None) for model in (self.policy, self.segmenter)]
        return None not in devices and str(devices[0]) != str(devices[1])

    def _stream_group(
        self,
        sources: Sequence[ImageSource],
        task: Task,
        reasoning: bool,
        batch_images: int,
        group_images: int,
        load: Callable[[Iterable[ImageSource]], Iterator[LoadedSource]],
    ) -> Iterator[SaliencyResult]:
        """Let the chunks of the group vote, then segment every image that could be read."""
        asked = ask_group(
            self.policy,
            self.segmenter,
            sources,
            task,
            reasoning=reasoning,
            batch_questions=batch_images,
            group_images=group_images,
            load=load,
        )
        if asked is None:
            return
        answer = _Answer(asked.output, asked.response, asked.policy_seconds, asked.seconds, asked.stands_out)
        for batch in batches(load(asked.readable), batch_images, _pixels):
            yield from self._results([(item, answer) for item in batch], task)
            del batch  # otherwise it would stay in memory while the next one is read

    def _results(
        self, answered: Sequence[tuple[LoadedSource, _Answer]], task: Task
    ) -> Iterator[SaliencyResult]:
        """Yield the results of several images; the masks of a batch are made together."""

        def size(pair: tuple[LoadedSource, _Answer]) -> int:
            return _pixels(pair[0]) * len(pair[1].response.expressions)

        for part in batches(answered, BATCH_IMAGES, size):
            start = perf_counter()
            named = [pair for pair in part if pair[1].response.expressions]
            encoded = encode_many(self.segmenter, [item.image for item, _ in named])
            found = segment_many(
                self.segmenter,
                encoded,
                [self._asked(answer, task) for _, answer in named],
                [task.spec.several_expressions] * len(named),
            )
            seconds = (perf_counter() - start) / max(1, len(named))
            made = deque(zip(encoded, found, strict=True))
            for item, answer in part:
                masks = made.popleft() if answer.response.expressions else None
                yield self._result(item, task, answer, masks, seconds if masks else 0.0)

    def _asked(self, answer: _Answer, task: Task) -> Sequence[str]:
        """Return how the segmenter is asked; what a user named is found, whether it stands out or not."""
        expressions = answer.response.expressions
        if isinstance(self.policy, GivenPhrase):
            return expressions
        if answer.stands_out:  # what a group shares is what stands out in each of its images
            return salient_texts(self.segmenter, expressions)
        return answer_texts(self.segmenter, expressions, task)

    def _result(
        self, item: LoadedSource, task: Task, answer: _Answer, masks: _Masks | None, seconds: float
    ) -> SaliencyResult:
        """Return the result of an image, whose masks took so many seconds."""
        start = perf_counter()
        output, response = answer.output, answer.response
        instances: list[Instance] = []
        scores: list[float] = []
        if masks is not None:
            if task.spec.several_images:
                instances, scores = self._shared(item, answer, masks)
            elif task.spec.several_expressions:
                instances, scores = self._instances(item, answer, masks)
            else:
                instances, scores = self._object(item, answer, masks)
        segmenter_seconds = seconds + perf_counter() - start
        return SaliencyResult(
            name=item.name,
            source=item.path,
            image=item.image,
            task=task,
            text=output.text,
            reasoning=response.reasoning,
            expressions=response.expressions,
            instances=tuple(instances),
            confidence=expected_quality(output.confidence, scores),
            model=self.name,
            seconds={
                "policy": answer.policy_seconds,
                "segmenter": segmenter_seconds,
                "total": item.seconds + answer.seconds + segmenter_seconds,
            },
            policy_confidence=output.belief,
            names=output.names,
            retries=output.retries,
            tokens=_tokens(output),
            layer=item.picture.layer,
        )

    def _object(
        self, item: LoadedSource, answer: _Answer, masks: _Masks
    ) -> tuple[list[Instance], list[float]]:
        """Return the mask of SOD and its score; a named object that is not found gets score 0."""
        instances, found = self._found(item, answer, masks)
        own = found.scores.tolist()
        return instances, [score if one.area else 0.0 for one, score in zip(instances, own, strict=True)]

    def _shared(
        self, item: LoadedSource, answer: _Answer, masks: _Masks
    ) -> tuple[list[Instance], list[float]]:
        """Return the mask of an image of a group, which may be empty; an empty mask keeps its score."""
        instances, found = self._found(item, answer, masks)
        return [one for one in instances if one.area], found.scores.tolist()

    def _instances(
        self, item: LoadedSource, answer: _Answer, masks: _Masks
    ) -> tuple[list[Instance], list[float]]:
        """Return the instances of SIS and their scores, with 0 for each that is named but not found."""
        encoded, _ = masks
        named, _ = self._found(item, answer, masks)
        instances = visible_instances(
            named,
            lambda: _visible(self.segmenter.segment(encoded, [UNNAMED]), item.picture).probabilities[0],
        )
        given = {one.expression for one in instances}
        found_nothing = sum(not one.area and one.expression not in given for one in named)
        return instances, [one.score for one in instances] + [0.0] * found_nothing

    def _found(
        self, item: LoadedSource, answer: _Answer, masks: _Masks
    ) -> tuple[list[Instance], Segmentation]:
        """Return an instance for each expression of the answer, and the masks that they are made from."""
        expressions = answer.response.expressions
        encoded, found = masks
        if answer.stands_out:
            found = settle(self.segmenter, encoded, found)
        found = _visible(found, item.picture)
        return scored_instances(expressions, found, answer.output.confidences(len(expressions))), found


def _segmenter_beside(policy: str, revision: str | None) -> Path | None:
    """Return the folder of the nano segmenter inside a policy's, on disk or on the hub; None without one."""
    if Path(policy).is_dir():
        folder = Path(policy) / SEGMENTER_FOLDER
        return folder if all((folder / name).is_file() for name in _SEGMENTER_FILES) else None
    from transformers.utils import cached_file

    from saliency_r1.policy.checkpoint_check import reachable

    place = reachable(policy, revision)
    config, weights = (
        cached_file(
            place,
            name,
            subfolder=SEGMENTER_FOLDER,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in _SEGMENTER_FILES
    )
    return Path(config).parent if config and weights else None


def _tokens(output: PolicyOutput) -> tuple[int, int] | None:
    """Return prompt and completion tokens, if a server counted them."""
    if output.prompt_tokens is None or output.completion_tokens is None:
        return None
    return output.prompt_tokens, output.completion_tokens


def _pixels(item: LoadedSource) -> int:
    return item.image.width * item.image.height


def _visible(found: Segmentation, picture: LoadedImage) -> Segmentation:
    """Remove transparent parts of the picture from the masks, because nothing is visible there."""
    if picture.layer is None:
        return found
    alpha = np.asarray(picture.layer.getchannel("A"), dtype=np.float32) / np.float32(255)
    return replace(found, probabilities=np.minimum(found.probabilities, alpha))
