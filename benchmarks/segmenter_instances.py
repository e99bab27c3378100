"""How well a segmenter finds the named one of several instances in real photos, as a Markdown table.

    python benchmarks/segmenter_instances.py --data ../shared/data

The photos are those of VOC-animals, Animals7, COCO-train and COCO-extra that are held out (a fifth, by the
hash of the file name) and have two to six instances, none a crowd, the largest over 5 % of the photo. Each
instance is asked for by one expression that is true of it alone: its name where no other has it, else its
name with a place, an order or a size, drawn with a seed. The instances that no such expression tells apart
are counted and left out.

An answer is right if its mask has a higher IoU with the named instance than with any other one. The baseline
asks for "the salient object" in place of every expression.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from saliency_r1.data.true_instances import InstanceImage, decode
from saliency_r1.images import load_image
from saliency_r1.language.expressions import GENERIC, Region
from saliency_r1.scenes.instance_photos import category_nouns, select
from saliency_r1.scenes.scene_expressions import Referred, refer
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.segmenters.load_segmenter import load_segmenter

SETS = ("extra/VOC-animals", "extra/Animals7", "COCO-train", "extra/COCO-extra")
KINDS = ("name", "place", "order", "size")
SEED = 0


@dataclass(frozen=True)
class Answer:
    """What came of one expression.

    Attributes:
        data: its set.
        kind: one of `KINDS`.
        instances: how many the photo has.
        text: the expression.
        right: whether the named instance has the highest IoU.
        iou: with the named instance.
        baseline_right, baseline_iou: the same of the mask of "the salient object".
    """

    data: str
    kind: str
    instances: int
    text: str
    right: bool
    iou: float
    baseline_right: bool
    baseline_iou: float


def expression_for(index: int, found: Sequence[Referred], rng: np.random.Generator) -> Referred | None:
    """An expression of one instance alone, by its name if that is enough; None if there is none."""
    own = [each for each in found if each.indices == (index,) and each.kind in KINDS]
    names = [each for each in own if each.kind == "name"]
    choices = names or own
    return choices[int(rng.integers(len(choices)))] if choices else None


def answers_of(
    segmenter: Segmenter, data: str, image: InstanceImage, names: Sequence[str], rng: np.random.Generator
) -> Iterator[Answer | None]:
    """An answer for each instance of a photo, None where no expression tells it apart."""
    masks = np.stack([decode(each.mask) for each in image.instances])
    regions = [Region(mask, category_nouns(name)) for mask, name in zip(masks, names, strict=True)]
    found = refer(regions, rng, [], closed=False)
    chosen = {index: expression_for(index, found, rng) for index in range(len(regions))}
    asked = {index: each for index, each in chosen.items() if each is not None}
    yield from (None for each in chosen.values() if each is None)
    if not asked:
        return
    encoded = segmenter.encode(load_image(image.image))
    texts = [each.text for each in asked.values()]
    predicted = segmenter.segment(encoded, [*texts, GENERIC[0]]).probabilities >= 0.5
    generic = ious(predicted[-1], masks)
    for (index, each), mask in zip(asked.items(), predicted[:-1], strict=True):
        own = ious(mask, masks)
        yield Answer(
            data,
            each.kind,
            len(masks),
            each.text,
            is_highest(own, index),
            float(own[index]),
            is_highest(generic, index),
            float(generic[index]),
        )


def ious(mask: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """IoU of a bool mask (H, W) with each of (N, H, W), float64 (N,)."""
    both = (masks & mask).sum((1, 2))
    return both / (masks | mask).sum((1, 2))


def is_highest(values: np.ndarray, index: int) -> bool:
    """Whether one value is above all others."""
    return bool(values[index] > np.delete(values, index).max())


def print_rows(answers: Sequence[Answer]) -> None:
    """Print the table: by set, by kind of expression, by number of instances, and all."""
    print("| asked | expressions | right instance | mean IoU | baseline: right | baseline: mean IoU |")
    print(f"|{'---|' * 6}")
    rows: dict[str, list[Answer]] = {}
    for each in answers:
        many = "2 instances" if each.instances == 2 else "3 to 6 instances"
        for title in (each.data, f"by {each.kind}", many, "all"):
            rows.setdefault(title, []).append(each)
    order = [*SETS, *(f"by {kind}" for kind in KINDS), "2 instances", "3 to 6 instances", "all"]
    for title in (title for title in order if title in rows):
        own = rows[title]
        numbers = (
            np.mean([each.right for each in own]),
            np.mean([each.iou for each in own]),
            np.mean([each.baseline_right for each in own]),
            np.mean([each.baseline_iou for each in own]),
        )
        print(f"| {title} | {len(own)} | {' | '.join(f'{number:.4f}' for number in numbers)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the four sets")
    parser.add_argument("--segmenter", help="NAME[:WEIGHTS] or a folder; default: the embedded one")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo (default 1)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    segmenter = load_segmenter(options.segmenter, options.device)
    photos = [
        (name, image, names)
        for name in SETS
        for image, names in select(options.data / name, "validation")
        if len(image.instances) > 1
    ][:: options.every]
    rng = np.random.default_rng(SEED)
    found = [
        answer
        for name, image, names in track(photos, "photos", console=Console(stderr=True))
        for answer in answers_of(segmenter, name, image, names, rng)
    ]
    answers = [answer for answer in found if answer is not None]
    print(
        f"{segmenter.name}: {len(photos)} photos, {len(found)} instances, "
        f"{len(found) - len(answers)} without an expression that tells them apart\n"
    )
    print_rows(answers)


if __name__ == "__main__":
    main()
