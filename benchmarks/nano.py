"""The numbers of the embedded nano model on the 500 held-out photos of DUTS-TR, as Markdown tables.

    python benchmarks/nano.py --data ../shared/data/DUTS

End to end (photo, words, mask) with reasoning and without; the segmenter alone, given "the salient object"
and given the true name; two composed foregrounds told apart by name; strict parses; faithfulness; and how
well each candidate for the confidence foretells the IoU. The boundary IoU is of boundaries as wide as .02 of
a photo's diagonal. Everything greedy and seeded.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.duts import load_duts, split
from saliency_r1.data.samples import Sample
from saliency_r1.errors import ResponseError
from saliency_r1.evaluation.calibration import calibrate
from saliency_r1.evaluation.sod import SodMetrics, SodResult
from saliency_r1.images import load_image
from saliency_r1.language.cues import measure
from saliency_r1.language.expressions import GENERIC, Nouns
from saliency_r1.language.faithfulness import Faithfulness, aggregate, check
from saliency_r1.language.naming import NameBook
from saliency_r1.response import parse_lenient, parse_strict
from saliency_r1.scenes.packed import PackedPhotos
from saliency_r1.scenes.referring import ReferringPhotos, compose
from saliency_r1.segmenters.base import salient_texts
from saliency_r1.tasks import Task

CONSTANT_REASONING = (
    "It is in the centre of the picture and touches no edge. "
    "It stands in strong contrast to the surroundings and is sharper than the background."
)
"""What could be said of every photo: faithfulness has to be read beside this text's."""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="the DUTS folder")
    arguments.add_argument("--photos", type=int, default=500, help="number of held-out photos, spread")
    arguments.add_argument("--composed", type=int, default=500, help="number of composed photos")
    arguments.add_argument("--policy", help="a policy folder instead of the embedded one")
    arguments.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    arguments.add_argument("--cache", type=Path, default=Path("cache/duts-tr-256/validation"))
    options = arguments.parse_args()
    train, held_out = split(load_duts(options.data))
    book = NameBook.from_samples(train)
    samples = held_out[:: max(1, len(held_out) // options.photos)][: options.photos]
    pipe = SaliencyPipeline.from_pretrained(options.policy, options.segmenter)
    print(f"model {pipe.name}, {len(samples)} held-out photos of DUTS-TR\n")
    sod_row("what the segmenter is given", None)
    sod_row("the salient object", given(pipe, samples, [GENERIC[0]] * len(samples)))
    names = [
        f"the {book.name(sample.synset)}" if sample.synset else "the salient object" for sample in samples
    ]
    sod_row("the true name, where there is one", given(pipe, samples, names))
    for reasoning in (True, False):
        end_to_end(pipe, samples, reasoning)
    told_apart(pipe, held_out, book, options.cache, options.composed)


def truth_of(sample: Sample) -> np.ndarray:
    """The mask of a sample, bool (H, W)."""
    assert sample.mask is not None
    with Image.open(sample.mask) as mask:
        return np.asarray(mask.convert("L")) > 127


def sod_row(title: str, result: SodResult | None) -> None:
    """Print a row of the table of SOD metrics; without a result, its head."""
    if result is None:
        print(f"| {title} | MAE | IoU | S | max F | mean E | boundary IoU |\n|---|---|---|---|---|---|---|")
        return
    values = (result.mae, result.iou, result.s_measure, result.max_f, result.mean_e, result.boundary_iou)
    print(f"| {title} | {' | '.join(f'{value:.4f}' for value in values)} |")


def given(pipe: SaliencyPipeline, samples: Sequence[Sample], expressions: Sequence[str]) -> SodResult:
    """SOD metrics of the segmenter alone."""
    metrics = SodMetrics()
    for sample, expression in track(list(zip(samples, expressions, strict=True)), "segmenter"):
        encoded = pipe.segmenter.encode(load_image(sample.image))
        metrics.update(pipe.segmenter.segment(encoded, [expression]).probabilities[0], truth_of(sample))
    return metrics.compute()


def end_to_end(pipe: SaliencyPipeline, samples: Sequence[Sample], reasoning: bool) -> None:
    """Print the metrics of the whole path."""
    metrics, parsed, faithful, constant = SodMetrics(), 0, [], []
    rows: list[dict[str, Any]] = []
    expressions: Counter[str] = Counter()
    start = perf_counter()
    for first in track(range(0, len(samples), 8), "end to end"):
        batch = samples[first : first + 8]
        images = [load_image(sample.image) for sample in batch]
        outputs = pipe.policy.respond([[image] for image in images], Task.SOD, reasoning=reasoning)
        for sample, image, output in zip(batch, images, outputs, strict=True):
            truth = truth_of(sample)
            try:
                parse_strict(output.text, Task.SOD)
                parsed += 1
            except ResponseError:
                pass
            response = parse_lenient(output.text, Task.SOD)
            expressions.update(response.expressions)
            asked = salient_texts(pipe.segmenter, response.expressions)
            found = pipe.segmenter.segment(pipe.segmenter.encode(image), asked)
            mask = found.probabilities.max(0) if response.expressions else np.zeros(truth.shape, np.float32)
            score = metrics.update(mask, truth)
            if reasoning:
                cues = measure(image, mask >= 0.5)
                faithful.append(check(response.reasoning, cues))
                constant.append(check(CONSTANT_REASONING, cues))
            if output.confidence is not None and response.expressions:
                quality = float(found.scores.mean())
                row = {"policy": output.confidence, "mask": quality, "product": output.confidence * quality}
                rows.append(row | {"iou": score.iou})
    seconds = (perf_counter() - start) / len(samples)
    title = "end to end, with reasoning" if reasoning else "end to end, answer alone"
    print()
    sod_row("path", None)
    sod_row(title, metrics.compute())
    print(f"\nstrict parses {parsed / len(samples):.4f}, {seconds:.3f} s a photo in batches of 8")
    most = ", ".join(f"{text} ({count})" for text, count in expressions.most_common(12))
    print(f"{len(expressions)} different expressions, most often {most}\n")
    if reasoning:
        print_faithfulness(faithful, constant)
    print("| confidence | mean | ECE | AUROC for IoU > 0.5 |\n|---|---|---|---|")
    iou = np.array([row["iou"] for row in rows])
    for kind in ("policy", "mask", "product"):
        values = np.array([row[kind] for row in rows])
        fit = calibrate(values, iou)
        print(f"| {kind} | {values.mean():.3f} | {fit.ece:.4f} | {fit.auroc or float('nan'):.4f} |")
    print(f"\nmean IoU {iou.mean():.3f}, IoU over 0.5 in {np.mean(iou > 0.5):.3f} of the photos\n")


def print_faithfulness(faithful: list[Faithfulness], constant: list[Faithfulness]) -> None:
    """Print the share of cue statements that hold, beside a constant text's."""
    whole, base = aggregate(faithful), aggregate(constant)
    print("| reasoning | statements a photo | that hold |\n|---|---|---|")
    print(f"| the policy's | {whole.total / len(faithful):.2f} | {whole.share or 0:.4f} |")
    print(f"| one constant text | {base.total / len(constant):.2f} | {base.share or 0:.4f} |")
    print("\nby kind: " + ", ".join(f"{kind.value} {share:.4f}" for kind, share in whole.by_kind.items()))
    worst = sorted(whole.by_value.items(), key=lambda item: item[1][0] - item[1][1])[:8]
    print("most often wrong: " + ", ".join(f"{k[1]} ({k[0].value}) {h}/{n}" for k, (h, n) in worst) + "\n")


def told_apart(
    pipe: SaliencyPipeline, held_out: Sequence[Sample], book: NameBook, cache: Path, count: int
) -> None:
    """Print how often a name picks the right one of two composed validation foregrounds."""
    named = [sample for sample in held_out if sample.synset]
    photos = PackedPhotos.open(held_out, cache, 256)
    rows = [photos.names.index(sample.name) for sample in named]
    nouns = [Nouns.of(sample.synset, book) if sample.synset else None for sample in held_out]
    source = ReferringPhotos(photos, nouns, [None] * len(photos), seed=0)
    rng = np.random.default_rng(0)
    ours: list[bool] = []
    wordnet: list[bool] = []
    ious: list[float] = []
    while len(ours) < 2 * count:
        one, two = (int(x) for x in rng.choice(len(named), 2, replace=False))
        labels = [book.name(named[index].synset) for index in (one, two)]  # type: ignore[arg-type]
        lemmas = [named[index].synset.name.lower() for index in (one, two)]  # type: ignore[union-attr]
        if labels[0] == labels[1] or lemmas[0] == lemmas[1]:
            continue
        composed = compose(source, rows[one], rows[two], rng)
        if composed is None:
            continue
        scene, regions = composed
        encoded = pipe.segmenter.encode(Image.fromarray(scene))
        masks = [region.mask for region in regions]
        for words, record in ((labels, ours), (lemmas, wordnet)):
            found = pipe.segmenter.segment(encoded, [f"the {word}" for word in words]).probabilities >= 0.5
            for index in (0, 1):
                own, other = (iou_of(found[index], masks[i]) for i in (index, 1 - index))
                record.append(own > other)
                if record is ours:
                    ious.append(own)
    print(f"two composed foregrounds, {count} photos, each object named once:\n")
    print("| named by | right object | mean IoU with it |\n|---|---|---|")
    print(f"| plain name | {np.mean(ours):.4f} | {np.mean(ious):.4f} |")
    print(f"| WordNet lemma | {np.mean(wordnet):.4f} | |")


def iou_of(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two bool masks; 0 where both are empty, which is no right answer here."""
    either = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / either) if either else 0.0


if __name__ == "__main__":
    main()
