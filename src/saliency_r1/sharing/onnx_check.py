"""Compare the graphs of a folder with what torch makes of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.segmenters.onnx import OnnxSegmenter
from saliency_r1.tasks import Task

MASKS = 1e-3
"""Maximum difference of a mask's probabilities, and of its score."""

CONFIDENCE = 1e-4
"""Maximum difference of a confidence."""

EIGHT_BITS_TEXTS = 0.8
"""Least share of texts that are equal where weights have 8 bits."""

EIGHT_BITS_CONFIDENCE = 0.02
"""Maximum difference of a confidence there, where texts are equal."""

_SIZES = ((320, 240), (200, 300), (700, 500))
_EXPRESSIONS = ("the red ball on the left", "the dog", "the large blue box", "something else")


@dataclass(frozen=True)
class Differences:
    """The largest differences that were found.

    Attributes:
        answers: number of answers that were compared.
        equal: number of them whose texts are equal.
        confidence: difference of a confidence, where texts are equal.
        masks: difference of a probability or score; None without a segmenter.
    """

    answers: int
    equal: int
    confidence: float
    masks: float | None


def check_graphs(folder: Path, segmenter: Path | None, *, eight_bits: bool = False) -> Differences:
    """Compare both runtimes on drawn pictures: every task with reasoning, and SOD without it.

    Args:
        folder: folder of a nano policy with its graphs.
        segmenter: folder of a nano segmenter with its graphs.
        eight_bits: whether weights have 8 bits, so that `EIGHT_BITS_TEXTS` and `EIGHT_BITS_CONFIDENCE` hold.

    Raises:
        SaliencyError: if texts differ, or confidences by more than `CONFIDENCE`, or masks by more than
            `MASKS`.
    """
    pictures = [_drawn(number, size) for number, size in enumerate(_SIZES)]
    answers, equal, confidence = _compare_policies(folder, pictures, eight_bits)
    masks = None if segmenter is None else _compare_segmenters(segmenter, pictures)
    return Differences(answers, equal, confidence, masks)


def _compare_policies(folder: Path, pictures: list[Image.Image], eight_bits: bool) -> tuple[int, int, float]:
    most = EIGHT_BITS_CONFIDENCE if eight_bits else CONFIDENCE
    reference = TransformersPolicy.from_pretrained(folder, device="cpu")
    graphs = OnnxPolicy(folder, "cpu")
    largest, count, other = 0.0, 0, []
    for task, reasoning in (*((task, True) for task in Task), (Task.SOD, False)):
        batch = [pictures, pictures[:2]] if task.spec.several_images else [[each] for each in pictures]
        wanted = reference.respond(batch, task, reasoning=reasoning)
        found = graphs.respond(batch, task, reasoning=reasoning)
        for first, second in zip(wanted, found, strict=True):
            count += 1
            if first.text == second.text:
                largest = max(largest, _difference(folder, first, second))
            else:
                other.append((first.text, second.text))
    if len(other) > ((1 - EIGHT_BITS_TEXTS) * count if eight_bits else 0):
        raise SaliencyError(
            f"{folder}: the graphs write {other[0][1]!r} where torch writes {other[0][0]!r}; if the model is "
            "trained, its answers are nearly as likely as others: run it with torch"
        )
    if largest > most:
        raise SaliencyError(
            f"{folder}: the graphs' confidence differs from torch's by {largest:.1e}, expected at most "
            f"{most:.0e}"
        )
    return count, count - len(other), largest


def _difference(folder: Path, wanted: PolicyOutput, found: PolicyOutput) -> float:
    if wanted.names:
        (word, sure), (other, own) = wanted.names[0], found.names[0]
        if word != other or abs(sure - own) > 2 * CONFIDENCE:  # they are rounded
            raise SaliencyError(
                f"{folder}: the graphs read the name {other} ({own}), and torch {word} ({sure})"
            )
    pairs = [(wanted.confidence, found.confidence)]
    pairs += zip(wanted.expression_confidences or (), found.expression_confidences or (), strict=True)
    return max(abs((first or 0.0) - (second or 0.0)) for first, second in pairs)


def _compare_segmenters(folder: Path, pictures: list[Image.Image]) -> float:
    reference = NanoSegmenter.from_pretrained(folder, device="cpu")
    graphs = OnnxSegmenter(folder, "cpu")
    largest = 0.0
    for picture in pictures:
        wanted, found = (each.segment(each.encode(picture), _EXPRESSIONS) for each in (reference, graphs))
        for first, second in ((wanted.probabilities, found.probabilities), (wanted.scores, found.scores)):
            largest = max(largest, float(np.abs(first - second).max()))
    if largest > MASKS:
        raise SaliencyError(
            f"{folder}: the graphs' masks differ from torch's by {largest:.1e}, expected at most {MASKS:.0e}"
        )
    return largest


def _drawn(number: int, size: tuple[int, int]) -> Image.Image:
    """Draw a disc and a box on blurred noise."""
    noise = np.random.default_rng(number).integers(60, 200, (size[1], size[0], 3), np.uint8)
    picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
    draw = ImageDraw.Draw(picture)
    width, height = size
    left, top = width * (1 + number) // 8, height // 4
    draw.ellipse((left, top, left + width // 3, top + height // 3), fill=(210, 40, 30))
    if number:
        draw.rectangle((width // 2, height // 2, width * 7 // 8, height * 7 // 8), fill=(30, 60, 200))
    return picture
