"""The fine-tuning set: questions about photos with the responses to learn, as JSON lines.

A line: `{"name": "n02084071_123", "images": ["DUTS-TR/DUTS-TR-Image/n02084071_123.webp"], "mirrored": false,
"task": "sod", "prompt": "What stands out in this image?", "response":
"<think>…</think><answer><rg>the dog</rg></answer>"}`

A response is written from the true mask (`rationale.py`) and kept only if a frozen segmenter finds the mask
again from its expression; this makes language a channel that carries the mask.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.cues import measure
from saliency_r1.data.naming import NameBook
from saliency_r1.data.rationale import Rationale, consistent, write_candidates
from saliency_r1.data.samples import Sample
from saliency_r1.errors import SaliencyError
from saliency_r1.files import open_atomic
from saliency_r1.images import load_image
from saliency_r1.response import Response
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.segmenters.base import Segmenter


@dataclass(frozen=True)
class SFTExample:
    """One question with the response to learn.

    Attributes:
        name: of the sample it was made from.
        images: paths, absolute or from the data's root.
        mirrored: whether the images are to be mirrored left to right; the response then fits the mirrored
            ones.
        task: what is asked.
        prompt: the user's text.
        response: the whole response text.
    """

    name: str
    images: tuple[str, ...]
    mirrored: bool
    task: Task
    prompt: str
    response: str

    @property
    def keys(self) -> list[tuple[str, bool]]:
        """Path and `mirrored` of each image."""
        return [(path, self.mirrored) for path in self.images]

    def to_json(self) -> str:
        """Its line, without the line's end."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class SFTSetting:
    """How a fine-tuning set is made.

    Attributes:
        variants: responses for each photo, and as many for its mirror image.
        fast_share: share of the responses without reasoning, in [0, 1], to the prompt that asks for that.
        mirror: whether each photo is also used mirrored.
        minimum_iou: of the mask that the segmenter finds from the expression and the true one.
        seed: of all choices. A sample's are its own: they do not depend on which other samples there are.
    """

    variants: int = 4
    fast_share: float = 0.25
    mirror: bool = True
    minimum_iou: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variants < 1 or not 0 <= self.fast_share <= 1 or not 0 <= self.minimum_iou <= 1:
            raise SaliencyError(f"{self}: variants must be at least 1, the shares in [0, 1]")


@dataclass
class SFTCounts:
    """What became of the rationales.

    Attributes:
        photos: photos looked at; a mirrored one counts as the same.
        unused: photos without any example.
        examples: lines written.
        fast: of them without reasoning.
        outcomes: rationales `kept`, reworded (by the kind of rewording) and `dropped`.
    """

    photos: int = 0
    unused: int = 0
    examples: int = 0
    fast: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the outcomes with the most frequent first."""
        return {**asdict(self), "outcomes": dict(self.outcomes.most_common())}


def read_examples(path: str | Path) -> list[SFTExample]:
    """The examples of a JSON lines file.

    Raises:
        SaliencyError: if the file or one of its lines cannot be read, or there is none.
    """
    examples = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SaliencyError(f"{path}: cannot be read ({error.strerror or error})") from None
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
    track: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
    workers: int = 1,
) -> SFTCounts:
    """Write the fine-tuning set of some photos.

    What is done is kept photo by photo in `<out>.part`, so that the same call after a kill goes on with the
    next photo; `out` appears in one step at the end.

    Args:
        samples: with masks.
        segmenter: the frozen one that expressions must work with.
        out: the JSON lines file.
        root: photo paths in the file begin there, where they can.
        names: how to call synsets; from `samples` if not given. Give the training set's for a validation set.
        setting: how.
        track: wraps the samples to show progress.
        workers: threads; the result is the same for any number.

    Raises:
        SaliencyError: if a photo or mask cannot be read, or `<out>.part` is of other settings.
    """
    out, setting = Path(out), setting or SFTSetting()
    names = names or NameBook.from_samples(samples)
    part = out.with_name(out.name + ".part")
    header = {**asdict(setting), "segmenter": segmenter.name, "root": str(root)}
    records = _read_part(part, header)
    done = {record["name"] for record in records}
    todo = [sample for sample in samples if sample.name not in done]

    def record_of(sample: Sample) -> dict[str, Any]:
        return _record(sample, segmenter, Path(root), names, setting)

    with open(part, "a", encoding="utf-8") as file, ThreadPoolExecutor(workers) as pool:
        for _, record in zip(track(todo), pool.map(record_of, todo), strict=True):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            records.append(record)
    counts = SFTCounts()
    wanted = {sample.name for sample in samples}
    with open_atomic(out) as lines:
        for record in (record for record in records if record["name"] in wanted):
            counts.photos += 1
            counts.unused += not record["examples"]
            counts.outcomes.update(record["outcomes"])
            for example in record["examples"]:
                counts.examples += 1
                counts.fast += example["response"].startswith("<think></think>")
                lines.write((json.dumps(example, ensure_ascii=False) + "\n").encode())
    part.unlink()
    return counts


def _example(row: dict[str, Any]) -> SFTExample:
    return SFTExample(
        name=row["name"],
        images=tuple(row["images"]),
        mirrored=bool(row.get("mirrored", False)),
        task=Task.parse(row["task"]),
        prompt=row["prompt"],
        response=row["response"],
    )


def _read_part(part: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier call did; a line that was cut off is removed. A new file gets the header."""
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


def _record(
    sample: Sample, segmenter: Segmenter, root: Path, names: NameBook, setting: SFTSetting
) -> dict[str, Any]:
    """All examples of one photo, and what became of its rationales."""
    if sample.mask is None:
        raise SaliencyError(f"{sample.name} has no mask: a rationale is written from one")
    image, mask = load_image(sample.image), load_image(sample.mask)
    if image.size != mask.size:
        raise SaliencyError(f"{sample.mask}: is {mask.size}, the photo is {image.size}")
    path = sample.image.relative_to(root) if sample.image.is_relative_to(root) else sample.image.absolute()
    examples: list[dict[str, Any]] = []
    outcomes: list[str] = []
    for mirrored in (False, True) if setting.mirror else (False,):
        if mirrored:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        known: set[tuple[str, str]] = set()
        truth = np.asarray(mask.convert("L")) >= 128
        for rationale, fast in _rationales(
            sample, image, truth, mirrored, segmenter, names, setting, outcomes
        ):
            reasoning = "" if fast else rationale.reasoning
            response = Response(reasoning, rationale.expressions, Task.SOD.spec.tag).text
            prompt = Task.SOD.spec.prompt(reasoning=not fast)
            if (prompt, response) in known:
                continue
            known.add((prompt, response))
            example = SFTExample(sample.name, (path.as_posix(),), mirrored, Task.SOD, prompt, response)
            examples.append(asdict(example))
    return {"name": sample.name, "examples": examples, "outcomes": outcomes}


def _rationales(
    sample: Sample,
    image: Image.Image,
    truth: np.ndarray,
    mirrored: bool,
    segmenter: Segmenter,
    names: NameBook,
    setting: SFTSetting,
    outcomes: list[str],
) -> Iterator[tuple[Rationale, bool]]:
    """The rationales of a picture that work with the segmenter; the bool asks for one without reasoning."""
    cues = measure(image, truth)
    encoded = segmenter.encode(image)
    found: dict[str, np.ndarray] = {}

    def segment(expression: str) -> np.ndarray:
        if expression not in found:
            found[expression] = segmenter.segment(encoded, [expression]).probabilities[0]
        return found[expression]

    rng = Random(f"{setting.seed} {sample.name} {mirrored}")
    written = [write_candidates(cues, sample.synset, rng, names=names) for _ in range(setting.variants)]
    fast = [rng.random() < setting.fast_share for _ in written]
    first = list(dict.fromkeys(text for candidates in written for text in candidates[0].expressions))
    found.update(zip(first, segmenter.segment(encoded, first).probabilities, strict=True))
    for candidates, without in zip(written, fast, strict=True):
        verdict = consistent(candidates, segment, truth, setting.minimum_iou)
        outcomes.append(verdict.outcome)
        if verdict.rationale is not None:
            yield verdict.rationale, without
