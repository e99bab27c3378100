"""The fine-tuning set: questions about photos with the responses to learn, as JSON lines.

A line: `{"name": "n02084071_123", "images": ["DUTS-TR/DUTS-TR-Image/n02084071_123.webp"], "mirrored": false,
"task": "sod", "prompt": "What stands out in this image?", "response":
"<think>…</think><answer><rg>the dog</rg></answer>"}`

A response is written from the true mask (`rationale.py`) and kept only if a frozen segmenter finds the mask
again from its expression; this makes language a channel that carries the mask. The examples of one photo,
scene or group are a `Job`; here are those of SOD and what all tasks share, in `sft_instances.py` those of SIS
and in `sft_groups.py` those of CoSOD.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic, read_text
from saliency_r1.images import load_image
from saliency_r1.language.cues import measure
from saliency_r1.language.naming import NameBook
from saliency_r1.response import Response
from saliency_r1.segmenters.base import salient_texts
from saliency_r1.tasks import Task
from saliency_r1.wording import UNNAMED
from saliency_r1.writing.rationale import consistent, write_candidates

if TYPE_CHECKING:
    from saliency_r1.segmenters.base import Segmenter


@dataclass(frozen=True)
class SFTExample:
    """One question with the response to learn.

    Attributes:
        name: name of the sample it was made from.
        images: paths, absolute or from the data's root.
        mirrored: whether the images are to be mirrored left to right; the response then fits the mirrored
            ones.
        task: what is asked.
        prompt: the user's text.
        response: the whole response text.
        nouns: what the response calls the salient region, each instance in reading order, or what a group
            shares: the words that the nano policy is told, see `nano.name_reader`. None in sets without them.
    """

    name: str
    images: tuple[str, ...]
    mirrored: bool
    task: Task
    prompt: str
    response: str
    nouns: tuple[str, ...] | None = None

    @property
    def keys(self) -> list[tuple[str, bool]]:
        """Path and `mirrored` of each image."""
        return [(path, self.mirrored) for path in self.images]

    def to_json(self) -> str:
        """Its line, without the line's end."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class ExampleSetting:
    """The settings of examples, whoever words them.

    Attributes:
        fast_share: share of the examples without reasoning, in [0, 1], to the prompt that asks for that.
        minimum_iou: least IoU of the mask that the segmenter finds from an expression and the true one.
        seed: random seed of all choices. Those of a sample do not depend on the other samples.
    """

    fast_share: float = 0.25
    minimum_iou: float = 0.7
    seed: int = 0

    def check(self, counts: dict[str, int], *shares: float) -> None:
        """Refuse counts below 1 (by their names), and shares outside [0, 1], those of the class included.

        Raises:
            SaliencyError: if one is out of range.
        """
        shares = (self.fast_share, self.minimum_iou, *shares)
        if min(counts.values()) < 1 or not all(0 <= share <= 1 for share in shares):
            raise SaliencyError(f"{self}: {' and '.join(counts)} must be at least 1, the shares in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SFTSetting(ExampleSetting):
    """The settings of a fine-tuning set.

    Attributes:
        variants: responses for each photo, and as many for its mirror image.
        mirror: whether each photo is also used mirrored.
        minimum_found: share of a picture's instances that must be found with `minimum_iou`.
        minimum_group_iou: the same for the mean over the images of a group.
    """

    variants: int = 4
    mirror: bool = True
    minimum_found: float = 1.0
    minimum_group_iou: float = 0.6

    def __post_init__(self) -> None:
        self.check({"variants": self.variants}, self.minimum_found, self.minimum_group_iou)


@dataclass(frozen=True)
class SFTMaker:
    """The means to make the examples of a set, whatever they show.

    Attributes:
        segmenter: the frozen one that expressions must work with.
        root: photo paths in the file begin there, where they can.
        names: how to call synsets.
        setting: how.
    """

    segmenter: Segmenter
    root: Path
    names: NameBook
    setting: SFTSetting

    @property
    def header(self) -> dict[str, Any]:
        """The settings on which the examples of a set depend, beside its photos."""
        return {**asdict(self.setting), "segmenter": self.segmenter.name, "root": str(self.root)}

    def path(self, path: Path) -> str:
        """The path of a picture as it stands in the file."""
        return path_from(self.root, path)


@dataclass
class SFTCounts:
    """The outcomes of the rationales.

    Attributes:
        photos: photos, scenes or groups looked at; a mirrored photo counts as the same.
        unused: number of them without any example.
        examples: lines written.
        fast: number of them without reasoning.
        outcomes: rationales `kept`, reworded (by the kind of rewording) and `dropped`; postponed jobs by why.
    """

    photos: int = 0
    unused: int = 0
    examples: int = 0
    fast: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the outcomes with the most frequent first."""
        return {**asdict(self), "outcomes": dict(self.outcomes.most_common())}


@dataclass(frozen=True)
class Job:
    """The examples to make of one photo, scene or group.

    Attributes:
        name: unique in its set.
        task: task of its examples.
        make: gives the examples, and what became of each rationale: `kept`, a kind of rewording, `dropped`;
            or raises `Postponed`.
    """

    name: str
    task: Task
    make: Callable[[], tuple[list[SFTExample], list[str]]]


class Postponed(Exception):
    """Raised by a job that cannot be done now: its outcome is counted, and the next call does it.

    Args:
        outcome: why.
    """

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Found:
    """The masks that a segmenter finds in one picture; each expression is segmented once.

    Args:
        segmenter: the frozen one.
        image: the picture, RGB.
        instances: whether the expressions mean instances, not regions.
        salient: whether each means the one thing that stands out, see `answer_texts`.
    """

    def __init__(
        self, segmenter: Segmenter, image: Image.Image, instances: bool = False, salient: bool = False
    ) -> None:
        self._segmenter, self._encoded, self._instances = segmenter, segmenter.encode(image), instances
        self._salient = salient
        self._masks: dict[str, np.ndarray] = {}

    def add(self, expressions: Iterable[str]) -> None:
        """Segment several at once, ahead of their use."""
        new = [text for text in dict.fromkeys(expressions) if text not in self._masks]
        if new:
            asked = salient_texts(self._segmenter, new) if self._salient else new
            probabilities = self._segmenter.segment(
                self._encoded, asked, instances=self._instances
            ).probabilities
            self._masks.update(zip(new, probabilities >= 0.5, strict=True))

    def __call__(self, expression: str) -> np.ndarray:
        """The mask of an expression, bool (H, W)."""
        self.add([expression])
        return self._masks[expression]


def read_examples(path: str | Path) -> list[SFTExample]:
    """The examples of a JSON lines file.

    Raises:
        SaliencyError: if the file or one of its lines cannot be read, or there is none.
    """
    examples = []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            examples.append(_example(json.loads(line)))
        except (ValueError, KeyError, TypeError, SaliencyError) as error:
            raise SaliencyError(f"{path}:{number}: is not a fine-tuning example ({error!r})") from None
    if not examples:
        raise SaliencyError(f"{path}: holds no example")
    return examples


def build_sft(
    samples: Sequence[Sample],
    segmenter: Segmenter,
    out: str | Path,
    *,
    root: str | Path,
    names: NameBook | None = None,
    setting: SFTSetting | None = None,
    track: Callable[[Iterable[Job]], Iterable[Job]] = iter,
    workers: int = 1,
) -> SFTCounts:
    """Write the fine-tuning set of some photos for SOD alone; see `write_set`.

    Args:
        samples: samples with masks.
        segmenter: the frozen one that expressions must work with.
        out: the JSON lines file.
        root: photo paths in the file begin there, where they can.
        names: how to call synsets; from `samples` if not given. Give the training set's for a validation set.
        setting: how.
        track: wraps the jobs to show progress.
        workers: threads; the result is the same for any number.
    """
    names = names or NameBook.from_samples(samples)
    maker = SFTMaker(segmenter, Path(root), names, setting or SFTSetting())
    return write_set(sod_jobs(samples, maker), out, maker.header, track=track, workers=workers)[Task.SOD]


def write_set(
    jobs: Sequence[Job],
    out: str | Path,
    header: dict[str, Any],
    *,
    track: Callable[[Iterable[Job]], Iterable[Job]] = iter,
    workers: int = 1,
) -> dict[Task, SFTCounts]:
    """Write a fine-tuning set.

    What is done is kept job by job in `<out>.part`, so that the same call after a kill continues with
    the next one; `out` appears in one step at the end. `<out>.part` stays if jobs were postponed.

    Args:
        jobs: what to make, in the order of the file.
        out: the JSON lines file.
        header: what the jobs' examples depend on; a `<out>.part` of another one is refused.
        track: wraps the jobs to show progress.
        workers: threads; the result is the same for any number.

    Returns:
        What became of the rationales of each task.

    Raises:
        SaliencyError: if two jobs have one name, a photo or mask cannot be read, or `<out>.part` is of other
            settings.
    """
    out = Path(out)
    if len({job.name for job in jobs}) < len(jobs):
        twice, _ = Counter(job.name for job in jobs).most_common(1)[0]
        raise SaliencyError(f"two jobs are called {twice!r}: names must be unique in a set")
    part = out.with_name(out.name + ".part")
    records = _read_part(part, header)
    done = {record["name"] for record in records}
    todo = [job for job in jobs if job.name not in done]
    with open(part, "a", encoding="utf-8") as file, ThreadPoolExecutor(workers) as pool:
        try:
            for _, record in zip(track(todo), pool.map(_record, todo), strict=True):
                if not record.get("postponed"):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    file.flush()
                records.append(record)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else all that is left would still be made
            raise
    counts = {task: SFTCounts() for task in dict.fromkeys(job.task for job in jobs)}
    record_of = {record["name"]: record for record in records}
    with open_atomic(out) as lines:
        for job in jobs:
            record, count = record_of[job.name], counts[job.task]
            count.outcomes.update(record["outcomes"])
            if record.get("postponed"):
                continue
            count.photos += 1
            count.unused += not record["examples"]
            for example in record["examples"]:
                count.examples += 1
                count.fast += example["response"].startswith("<think></think>")
                lines.write((json.dumps(example, ensure_ascii=False) + "\n").encode())
    if not any(record.get("postponed") for record in records):
        part.unlink()
    return counts


def sod_jobs(samples: Iterable[Sample], maker: SFTMaker) -> list[Job]:
    """One job a photo with a mask, for SOD."""
    return [Job(sample.name, Task.SOD, partial(_sod_examples, sample, maker)) for sample in samples]


def example_of(
    name: str,
    images: Sequence[str],
    mirrored: bool,
    task: Task,
    reasoning: str,
    expressions: Sequence[str],
    nouns: Sequence[str] | None = None,
) -> SFTExample:
    """The example with this answer; one without reasoning if the reasoning is empty."""
    response = Response(reasoning, tuple(expressions), task.spec.tag).text
    prompt = task.spec.prompt(reasoning=bool(reasoning))
    return SFTExample(
        name, tuple(images), mirrored, task, prompt, response, None if nouns is None else tuple(nouns)
    )


def path_from(root: str | Path, path: Path) -> str:
    """The path from `root` if it is below it, else the absolute one."""
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()


def read_truth(sample: Sample) -> tuple[Image.Image, np.ndarray]:
    """A photo, RGB, and its true mask, bool (H, W).

    Raises:
        SaliencyError: if there is no mask, one of them cannot be read, or the sizes differ.
    """
    if sample.mask is None:
        raise SaliencyError(f"{sample.name} has no mask: a rationale is written from one")
    image, mask = load_image(sample.image), load_image(sample.mask)
    if image.size != mask.size:
        raise SaliencyError(f"{sample.mask}: is {mask.size}, the photo is {image.size}")
    return image, np.asarray(mask.convert("L")) >= 128


def _example(row: dict[str, Any]) -> SFTExample:
    return SFTExample(
        name=row["name"],
        images=tuple(row["images"]),
        mirrored=bool(row.get("mirrored", False)),
        task=Task.parse(row["task"]),
        prompt=row["prompt"],
        response=row["response"],
        nouns=None if row.get("nouns") is None else tuple(row["nouns"]),
    )


def _read_part(part: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an earlier call did; a line that was cut off is removed. A new file gets the header."""
    part.parent.mkdir(parents=True, exist_ok=True)
    whole: list[dict[str, Any]] = []
    if part.is_file():
        data = part.read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        whole = [json.loads(line) for line in data.splitlines()]
        if whole and whole[0] != header:
            raise SaliencyError(f"{part} is of other settings ({whole[0]}): delete it, or use those")
        with open(part, "r+b") as file:
            file.truncate(len(data))
    if not whole:
        part.write_text(json.dumps(header) + "\n", encoding="utf-8")
    return whole[1:]


def _record(job: Job) -> dict[str, Any]:
    record: dict[str, Any] = {"name": job.name, "task": job.task}
    try:
        examples, outcomes = job.make()
    except Postponed as reason:
        return {**record, "examples": [], "outcomes": [reason.outcome], "postponed": True}
    unique = dict.fromkeys(examples)
    return {**record, "examples": [asdict(example) for example in unique], "outcomes": outcomes}


def _sod_examples(sample: Sample, maker: SFTMaker) -> tuple[list[SFTExample], list[str]]:
    """All examples of one photo, and what became of its rationales."""
    image, truth = read_truth(sample)
    examples, outcomes = sod_answers(sample, image, truth, maker)
    if maker.setting.mirror:
        more, also = sod_answers(sample, ImageOps.mirror(image), truth[:, ::-1], maker, mirrored=True)
        examples, outcomes = examples + more, outcomes + also
    return examples, outcomes


def sod_answers(
    sample: Sample,
    image: Image.Image,
    truth: np.ndarray,
    maker: SFTMaker,
    *,
    mirrored: bool = False,
) -> tuple[list[SFTExample], list[str]]:
    """The SOD examples of a picture, of rationales that work with the segmenter, and what became of each.

    Args:
        sample: where the picture is kept, its name and what it shows.
        image: the picture, RGB; mirrored, if so it is to be.
        truth: its mask, bool (H, W).
        maker: what the examples are made with.
        mirrored: whether the kept picture is to be mirrored.
    """
    setting = maker.setting
    outcomes: list[str] = []
    examples: list[SFTExample] = []
    path = maker.path(sample.image)
    found = Found(maker.segmenter, image, salient=True)
    # What is true of the mask drawn by hand alone, the policy could not see.
    cues = replace(measure(image, truth), witness=measure(image, found(UNNAMED)))
    rng = Random(f"{setting.seed} {sample.name} {mirrored}")
    # Most texts would be of "the object" if photos without a name had as many.
    variants = 1 if sample.synset is None else setting.variants
    written = [write_candidates(cues, sample.synset, rng, names=maker.names) for _ in range(variants)]
    fast = [rng.random() < setting.fast_share for _ in written]
    found.add(text for candidates in written for text in candidates[0].expressions)
    for candidates, without in zip(written, fast, strict=True):
        verdict = consistent(candidates, found, truth, setting.minimum_iou)
        outcomes.append(verdict.outcome)
        if verdict.rationale is not None:
            chosen = verdict.rationale
            reasoning = "" if without else chosen.reasoning
            examples.append(
                example_of(
                    sample.name, [path], mirrored, Task.SOD, reasoning, chosen.expressions, chosen.nouns
                )
            )
    return examples, outcomes
