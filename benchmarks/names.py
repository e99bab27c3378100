"""What the embedded nano model calls things, on held-out photos, as Markdown tables.

    python benchmarks/names.py --data ../shared/data

The reader of names gets the true masks of the named held-out photos of DUTS-TR: the exact synset, and how
true and how narrow its words are at each threshold (hedging). The model answers by itself: how often the
salient object is named (name, synonym, or a hypernym up to three levels), how often it is "the object",
how often the category of a photo that shows only one is named, and how many plans the reasons follow. Last,
how well the probability of the best name and the policy's confidence foretell that the name is right.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.duts import load_duts, split
from saliency_r1.data.samples import Sample, spread
from saliency_r1.evaluation.calibration import calibrate
from saliency_r1.language.accepted_names import accepted_names, is_named
from saliency_r1.language.naming import NameBook
from saliency_r1.language.statements import PHRASES
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.result import SaliencyResult
from saliency_r1.scenes.instance_photos import category_nouns, select
from saliency_r1.training.fine_tuning.fit_names import hedged, named_photos, read_regions

SETS = ("extra/VOC-animals", "extra/Animals7", "extra/Humans290", "COCO-train", "extra/COCO-extra")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
UNNAMED = {"", "the object", "the thing"}
_PHRASES = re.compile(
    "|".join(
        sorted(
            (re.escape(phrase) for values in PHRASES.values() for each in values.values() for phrase in each),
            key=len,
            reverse=True,
        )
    )
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with DUTS and extra")
    parser.add_argument("--photos", type=int, default=300, help="photos of one category (default 300)")
    parser.add_argument("--policy", help="a policy folder instead of the embedded one")
    parser.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    options = parser.parse_args()
    pipe = SaliencyPipeline.from_pretrained(options.policy, options.segmenter, runtime="torch")
    print(f"model {pipe.name} on {pipe.device}\n")
    reader = pipe.policy.model.model.adapter.names  # type: ignore[attr-defined]
    if reader is not None:
        reading(pipe, reader, options.data)
    print("| what | photos | measured |\n|---|---|---|")
    objects(pipe, options.data)
    categories(pipe, reader, options.data, options.photos)


def reading(pipe: Any, reader: NameReader, data: Path) -> None:
    """Print what the reader makes of regions that are known: under true masks, and as the policy looks."""
    photos = named_photos([data / "DUTS"], "validation")
    regions = read_regions(pipe.policy.model, pipe.policy.processor, photos, None)
    known = {label for photo in named_photos([data / "DUTS"], "train") for _, label in photo.regions}
    choices = torch.tensor([number for name, number in reader.tree.number.items() if name in known])
    with torch.no_grad():
        found = choices[reader.logits(regions.features)[:, choices].argmax(1)].tolist()
    classes = [reader.tree.classes[row] for row in found]
    exact = np.mean([mine == label for mine, label in zip(classes, regions.labels, strict=True)])
    print(f"exact synset, true masks of {len(found)} photos, of {len(choices)}: {exact:.4f}\n")
    print("| threshold | words that are true | without a word | specificity |\n|---|---|---|---|")
    for threshold in sorted({*THRESHOLDS, reader.threshold}):
        true, unnamed, specific = hedged(reader, regions, threshold)
        chosen = " (chosen)" if threshold == reader.threshold else ""
        print(f"| {threshold:.2f}{chosen} | {true:.4f} | {unnamed:.4f} | {specific:.4f} |")
    print()


def answers(pipe: SaliencyPipeline, images: Sequence[Path], what: str) -> Iterator[SaliencyResult]:
    """The SOD answer to each photo."""
    return iter(track(pipe.stream(images, "sod"), what, len(images)))


def objects(pipe: SaliencyPipeline, data: Path) -> None:
    """Print how the salient objects of DUTS-TR are named, and how the reasons are built."""
    train, held_out = split(load_duts(data / "DUTS"))
    book = NameBook.from_samples(train)
    results = list(answers(pipe, [sample.image for sample in held_out], "DUTS-TR"))
    unnamed = [" ".join(result.expressions) in UNNAMED for result in results]
    row('"the object" or nothing', len(results), float(np.mean(unnamed)))
    named = [(sample, result) for sample, result in zip(held_out, results, strict=True) if sample.synset]
    right = [is_right(sample, result, book) for sample, result in named]
    row("the salient object named, DUTS-TR", len(named), float(np.mean(right)))
    plans = Counter(plan(result) for result in results)
    openings = Counter(first_sentence(result) for result in results)
    row("different plans of a reasoning", len(results), len(plans))
    row("share of the commonest plan", len(results), plans.most_common(1)[0][1] / len(results))
    row("different first sentences", len(results), len(openings))
    row("share of the commonest first sentence", len(results), openings.most_common(1)[0][1] / len(results))
    # An answer that gives no name foretells nothing of one.
    given = [" ".join(each.expressions) not in UNNAMED for _, each in named]
    sayings = [each for (_, each), here in zip(named, given, strict=True) if here]
    truths = np.array(right, float)[given]
    sure = {
        "the probability of the best name": [each.names[0][1] if each.names else 0.0 for each in sayings],
        "the policy's confidence in its words": [each.policy_confidence or 0.0 for each in sayings],
    }
    for what, values in sure.items():
        fit = calibrate(np.array(values), truths)
        row(f"AUROC of {what} for a right name", len(sayings), fit.auroc or float("nan"))
        row(f"ECE of {what} for a right name", len(sayings), fit.ece)


def is_right(sample: Sample, result: SaliencyResult, book: NameBook) -> bool:
    """Whether an answer names the synset of a photo."""
    assert sample.synset is not None
    return is_named(" ".join(result.expressions), accepted_names(sample.synset, book))


def plan(result: SaliencyResult) -> str:
    """A reasoning without its nouns and cues: the same for texts that are built alike."""
    text = result.reasoning
    for noun in sorted({noun_of(expression) for expression in result.expressions}, key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(noun)}\b", "N", text)
    return _PHRASES.sub("C", text)


def first_sentence(result: SaliencyResult) -> str:
    """The first sentence of a reasoning, its noun left out."""
    noun = noun_of("".join(result.expressions[:1]))
    return re.sub(rf"\b{re.escape(noun)}\b", "N", result.reasoning.split(". ")[0]) if noun else ""


def noun_of(expression: str) -> str:
    """The words of an expression between "the" and a place."""
    return re.split(r" (?:on|in|at) the ", expression.removeprefix("the "))[0]


def categories(pipe: SaliencyPipeline, reader: NameReader | None, data: Path, count: int) -> None:
    """Print how often the one category that a photo shows is named, or a kind of it."""
    found = [each for name in SETS for each in select(data / name, "validation")]
    alone = spread([(image, nouns[0]) for image, nouns in found if len(set(nouns)) == 1], count)
    right, said = [], Counter[str]()
    results = answers(pipe, [image.image for image, _ in alone], "categories")
    for (_, name), result in zip(alone, results, strict=True):
        nouns = category_nouns(name)
        expression = " ".join(result.expressions)
        allowed = frozenset((*nouns.names, *nouns.synonyms)) | kinds_of(reader, nouns.names[0])
        right.append(is_named(expression, allowed))
        said[f"{name}: {expression}"] += not right[-1]
    row("the category named, photos of one category", len(alone), float(np.mean(right)))
    others = ", ".join(f"{words} ({number})" for words, number in said.most_common(12) if number)
    print(f"\nOther words than those of the category: {others}")


def kinds_of(reader: NameReader | None, name: str) -> frozenset[str]:
    """The narrower words of a word: "pug" for dog."""
    if reader is None:
        return frozenset()
    chains = [reader.tree.chains[number] for number in reader.tree.below.get(name, ())]
    return frozenset(word for chain in chains for word in chain[: chain.index(name)])


def row(what: str, photos: int, value: float) -> None:
    """Print a row of the table."""
    shown = f"{value:.4f}" if isinstance(value, float) else str(value)
    print(f"| {what} | {photos} | {shown} |")


if __name__ == "__main__":
    main()
