"""Rationales worded by a writer model: it looks at the photo with the true mask drawn on it.

As in `saliency_r1.writing.rationale` the cues are measured and the expression must lead a frozen segmenter
back to the mask; only the words are the model's own. What it writes is reviewed, and it gets a bounded number
of tries, each told what was wrong with the last. The examples have the form of `saliency-r1 data sft`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.layouts import load_splits
from saliency_r1.data.samples import Sample
from saliency_r1.device import fewer_torch_threads
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.language.cues import measure
from saliency_r1.language.naming import OBJECT, NameBook
from saliency_r1.response import Response
from saliency_r1.tasks import Task
from saliency_r1.writing.review import Fault, review
from saliency_r1.writing.sft_set import (
    ExampleSetting,
    Found,
    Job,
    Postponed,
    SFTCounts,
    SFTExample,
    example_of,
    path_from,
    read_truth,
    write_set,
)
from saliency_r1.writing.writer_model import WriterModel
from saliency_r1.writing.writer_prompt import show, writer_prompt

if TYPE_CHECKING:
    from saliency_r1.segmenters.base import Segmenter


@dataclass(frozen=True, kw_only=True)
class WriterSetting(ExampleSetting):
    """The settings of rationales that a writer model words.

    `fast_share` is the share of the rationales that also give an example without reasoning, and `seed` is
    also that of the model's sampling where it takes one.

    Attributes:
        variants: number of rationales of each photo, and of its mirror image; each is paid.
        mirror: whether each photo is also used mirrored.
        minimum_faithful: share of the statements about place, size, colour and contrast that must hold.
        tries: answers for each rationale, at most.
    """

    variants: int = 1
    mirror: bool = False
    minimum_faithful: float = 0.8
    tries: int = 3

    def __post_init__(self) -> None:
        self.check({"variants": self.variants, "tries": self.tries}, self.minimum_faithful)


def writer_jobs(
    samples: Iterable[Sample],
    writer: WriterModel,
    segmenter: Segmenter,
    root: str | Path,
    names: NameBook,
    setting: WriterSetting,
) -> list[Job]:
    """One job a photo, for `saliency_r1.writing.sft_set.write_set`.

    Its outcomes say what became of each answer: `kept`, or why it was rejected. A photo whose mask is empty
    is not asked about. A job is postponed if its photo gets no answer or the budget is spent.

    Args:
        samples: samples with masks.
        writer: the model.
        segmenter: the frozen one that expressions must work with.
        root: photo paths in the examples begin there, where they can.
        names: the training set's.
        setting: how.
    """
    make = partial(
        _examples, writer=writer, segmenter=segmenter, root=Path(root), names=names, setting=setting
    )
    return [Job(sample.name, Task.SOD, partial(make, sample)) for sample in samples]


def writer_header(
    writer: WriterModel, segmenter: Segmenter, root: str | Path, setting: WriterSetting
) -> dict[str, Any]:
    """The settings on which the examples depend, beside the photos."""
    return {
        **asdict(setting),
        "writer": writer.endpoint.model,
        "temperature": writer.temperature,
        "max_new_tokens": writer.max_new_tokens,
        "max_pixels": writer.endpoint.max_pixels,
        "segmenter": segmenter.name,
        "root": str(root),
    }


def _examples(
    sample: Sample,
    *,
    writer: WriterModel,
    segmenter: Segmenter,
    root: Path,
    names: NameBook,
    setting: WriterSetting,
) -> tuple[list[SFTExample], list[str]]:
    """All examples of one photo, and what became of each answer."""
    if writer.over_budget:
        raise Postponed("over the budget")
    image, truth = read_truth(sample)
    if not truth.any():
        return [], ["empty mask"]
    path = path_from(root, sample.image)
    name = names.name(sample.synset) if sample.synset else OBJECT
    examples: list[SFTExample] = []
    outcomes: list[str] = []
    for mirrored in (False, True) if setting.mirror else (False,):
        if mirrored:
            image, truth = ImageOps.mirror(image), truth[:, ::-1]
        rng = Random(f"{setting.seed} {sample.name} {mirrored}")
        for response in _responses(image, truth, name, writer, segmenter, setting, outcomes):
            example = partial(example_of, sample.name, [path], mirrored, Task.SOD)
            examples.append(example(response.reasoning, response.expressions))
            if rng.random() < setting.fast_share:
                examples.append(example("", response.expressions))
    return examples, outcomes


def _responses(
    image: Image.Image,
    truth: np.ndarray,
    name: str,
    writer: WriterModel,
    segmenter: Segmenter,
    setting: WriterSetting,
    outcomes: list[str],
) -> Iterable[Response]:
    """The responses about one picture that may be learnt from."""
    cues = measure(image, truth)
    found = Found(segmenter, image, salient=True)
    question = writer.endpoint.question([show(image, truth)], writer_prompt(cues, name))
    for variant in range(setting.variants):
        messages = [question]
        for _ in range(setting.tries):
            text = writer.ask(messages, setting.seed + variant)
            verdict = review(
                text,
                cues,
                found,
                truth,
                minimum_iou=setting.minimum_iou,
                minimum_faithful=setting.minimum_faithful,
            )
            if not isinstance(verdict, Fault):
                outcomes.append("kept")
                yield verdict
                break
            outcomes.append(verdict.reason)
            # An empty turn is refused by some servers.
            messages.append({"role": "assistant", "content": text.strip() or "(nothing)"})
            messages.append({"role": "user", "content": verdict.advice})


def write_rationales(
    data: Path,
    model: WriterModel,
    segmenter: Segmenter,
    setting: WriterSetting,
    out: Path,
    *,
    split: str = "train",
    limit: int | None = None,
    track: Callable[[Iterable[Job]], Iterable[Job]] = iter,
    concurrent: int = 1,
) -> SFTCounts:
    """Write `SPLIT.jsonl` and `SPLIT-counts.json` into `out`; the same call resumes.

    Args:
        data: the DUTS folder, or one of photos and masks.
        model: what writes.
        segmenter: the frozen one that expressions must work with.
        setting: how.
        out: the folder.
        split: `train` or `validation`.
        limit: photos, spread over the split; None for all.
        track: wraps the jobs to show progress.
        concurrent: photos under way at a time.

    Returns:
        What became of the rationales.

    Raises:
        SaliencyError: if the split holds no photo; else as of `write_set`.
    """
    train, validation = load_splits(data)
    samples = validation if split == "validation" else train
    if not samples:
        raise SaliencyError(f"{data}: the {split} split holds no photo; see --split")
    samples = samples[:: max(1, len(samples) // (limit or len(samples)))][:limit]
    with fewer_torch_threads(concurrent):
        written = write_set(
            writer_jobs(samples, model, segmenter, data, NameBook.from_samples(train), setting),
            out / f"{split}.jsonl",
            writer_header(model, segmenter, data, setting),
            track=track,
            workers=concurrent,
        )
    counts = written[Task.SOD]
    report = {"sod": counts.to_dict(), "writer": model.report()}
    write_bytes_atomic(out / f"{split}-counts.json", json.dumps(report, indent=1).encode())
    return counts
