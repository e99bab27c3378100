"""SIS and CoSOD of the embedded nano model beside what an SOD model alone gives, as a Markdown table.

    python benchmarks/nano_tasks.py --data ../shared/data --rows scenes --onnx u2netp.onnx

`--data` holds DUTS, COCO-train, balloon-train and extra. The rows, each of which may be asked for alone:

scenes    SIS on composed scenes of held-out photos: AP50, the right number of instances
photos    SIS on the held-out fifth of the COCO-train and balloon-train photos: AP50
animals   SIS on held-out photos of VOC-animals, Animals7 and COCO, evenly spread: AP50, the right number
groups    CoSOD on the held-out photos of the 40 synsets with the most of them: S-measure
composed  CoSOD on 40 composed groups of 8 with distractors: IoU
names     what is shared, or stands out, is named by name, synonym or a hypernym up to three levels
latency   one photo with three instances, and a group of 8: median seconds

Baselines: for SIS the mask of an SOD network, given by `--onnx`, cut into connected components, else our own
mask of SOD; for CoSOD our mask of SOD on the same photos; for names the best constant name. Strict parses of
all responses come last. All is greedy and seeded.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.duts import load_duts, load_synsets, split
from saliency_r1.data.mask_files import load_mask
from saliency_r1.data.samples import Sample, Synset, spread
from saliency_r1.data.teacher.network import Teacher
from saliency_r1.data.true_instances import RunLengths, encode
from saliency_r1.errors import ResponseError
from saliency_r1.evaluation.instance_metrics import InstanceMetrics, PredictedInstance, connected_components
from saliency_r1.evaluation.sod import SodMetrics
from saliency_r1.images import load_image
from saliency_r1.language.accepted_names import accepted_names, is_named
from saliency_r1.language.naming import NameBook
from saliency_r1.pipeline import BATCH_IMAGES
from saliency_r1.policy.base import Policy, PolicyOutput
from saliency_r1.response import parse_lenient, parse_strict
from saliency_r1.scenes.foregrounds import Foregrounds
from saliency_r1.scenes.instance_photos import select
from saliency_r1.scenes.scenes import Scene, compose_group, scene_number
from saliency_r1.segmenters.base import answer_texts
from saliency_r1.sis import (
    Score,
    instance_score,
    mean_probability,
    scored_instances,
    visible_instances,
)
from saliency_r1.tasks import Task
from saliency_r1.wording import UNNAMED

SEED = 2024
GROUPS, GROUP_SIZE = 40, 8
ANIMALS = ("extra/VOC-animals", "extra/Animals7", "COCO-train", "extra/COCO-extra")
SIS_SECONDS, GROUP_SECONDS = 1.3, 6.0

SCORES: dict[str, Score] = {
    "as shipped": instance_score,
    "segmenter's expected IoU": lambda mask, own, sure: own,
    "mean probability in the mask": lambda mask, own, sure: mean_probability(mask),
    "policy's confidence in the expression": lambda mask, own, sure: 1.0 if sure is None else sure,
    "expected IoU × confidence": lambda mask, own, sure: own * (1.0 if sure is None else sure),
    "mean probability × confidence": lambda mask, own, sure: (
        mean_probability(mask) * (1.0 if sure is None else sure)
    ),
    "mean probability × expected IoU": lambda mask, own, sure: mean_probability(mask) * own,
}
"""Candidates for the score of an instance; `saliency_r1.sis.instance_score` is to be the best of them."""


class RecordedPolicy:
    """A policy that keeps every text it wrote, by task."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name
        self.texts: dict[Task, list[str]] = {task: [] for task in Task}

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """As the policy does."""
        outputs = self.policy.respond(batch, task, reasoning=reasoning, max_new_tokens=max_new_tokens)
        self.texts[task] += [output.text for output in outputs]
        return outputs


@dataclass
class Bench:
    """The model, the held-out data, and the rows of the table so far."""

    pipe: SaliencyPipeline
    data: Path
    cache: Path
    scenes: int
    repeats: int
    reasoning: bool
    photos: int
    other: Teacher | None
    table: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = RecordedPolicy(self.pipe.policy)
        self.pipe.policy = self.policy

    @cached_property
    def splits(self) -> tuple[list[Sample], list[Sample]]:
        return split(load_duts(self.data / "DUTS"))

    @cached_property
    def book(self) -> NameBook:
        return NameBook.from_samples(self.splits[0])

    @cached_property
    def foregrounds(self) -> Foregrounds:
        return Foregrounds.open(self.splits[1], self.cache, 256)

    def sod_masks(self, images: Sequence[Image.Image]) -> Iterator[np.ndarray]:
        """What stands out in images, float32 (H, W) in [0, 1] each, for the baseline of SIS."""
        if self.other is None:
            yield from (found.mask for found in self.pipe.stream(images, Task.SOD, reasoning=self.reasoning))
            return
        yield from map(self.other, images)

    def add(self, what: str, ours: float | None, baseline: float | None, must: str, met: bool | None) -> None:
        said = "" if met is None else "yes" if met else "no"
        self.table.append((what, shown(ours), shown(baseline), must, said))


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


@dataclass(frozen=True)
class Instances:
    """A photo and its true instances."""

    key: str
    image: Image.Image
    truth: list[RunLengths]

    def itself(self) -> Instances:
        return self


def sis_row(bench: Bench, what: str, cases: Sequence[Callable[[], Instances]]) -> tuple[float, float, float]:
    """Print AP under every candidate score, and of the baseline.

    Returns:
        AP50, AP50 of the baseline, and the share of photos with the right number of instances.
    """
    metrics = {name: InstanceMetrics() for name in SCORES}
    baseline = InstanceMetrics()
    right: dict[int, list[tuple[bool, bool]]] = {}
    for first in track(range(0, len(cases), BATCH_IMAGES), what):
        batch = [case() for case in cases[first : first + BATCH_IMAGES]]
        images = [case.image for case in batch]
        outputs = bench.pipe.policy.respond(
            [[image] for image in images], Task.SIS, reasoning=bench.reasoning
        )
        for case, output, sod in zip(batch, outputs, bench.sod_masks(images), strict=True):
            truth = [(mask, False) for mask in case.truth]
            found = predicted(bench.pipe, case.image, output)
            for name, instances in found.items():
                metrics[name].update(case.key, truth, instances)
            parts = connected_components(sod)
            baseline.update(case.key, truth, parts)
            true = len(truth)
            right.setdefault(true, []).append((len(found["as shipped"]) == true, len(parts) == true))
    scores = {name: one.compute() for name, one in metrics.items()}
    of_baseline = baseline.compute()
    print(f"{what}, {len(cases)} photos:\n")
    print_table(
        ("score of an instance", "AP50", "AP70", "AP", "AR"),
        [
            (name, shown(one.ap50), shown(one.ap70), shown(one.ap), shown(one.ar))
            for name, one in [*scores.items(), ("baseline: components of the SOD mask", of_baseline)]
        ],
    )
    everyone = [each for group in right.values() for each in group]
    counted = [(str(number), str(len(group)), *shares(group)) for number, group in sorted(right.items())]
    print_table(
        ("true instances", "photos", "right number", "baseline"),
        [*counted, ("all", str(len(everyone)), *shares(everyone))],
    )
    ours = scores["as shipped"].ap50 or 0.0
    return ours, of_baseline.ap50 or 0.0, float(np.mean([each[0] for each in everyone]))


def shares(pairs: Sequence[tuple[bool, bool]]) -> tuple[str, str]:
    ours, baseline = np.mean(pairs, axis=0)
    return shown(float(ours)), shown(float(baseline))


def predicted(
    pipe: SaliencyPipeline, image: Image.Image, output: PolicyOutput
) -> dict[str, list[PredictedInstance]]:
    """What the pipeline finds for a response, under every candidate score; the masks are found once."""
    expressions = parse_lenient(output.text, Task.SIS).expressions
    if not expressions:
        return {name: [] for name in SCORES}
    encoded = pipe.segmenter.encode(image)
    asked = answer_texts(pipe.segmenter, expressions, Task.SIS)
    found = pipe.segmenter.segment(encoded, asked, instances=True)
    salient = cache(lambda: pipe.segmenter.segment(encoded, [UNNAMED]).probabilities[0])
    confidences = output.confidences(len(expressions))
    return {
        name: [
            PredictedInstance(encode(one.binary), one.score)
            for one in visible_instances(scored_instances(expressions, found, confidences, score), salient)
        ]
        for name, score in SCORES.items()
    }


def scenes(bench: Bench) -> None:
    def case(number: int) -> Callable[[], Instances]:
        def made() -> Instances:
            scene = scene_number(bench.foregrounds, SEED, number)
            truth = [encode(one.mask) for one in scene.objects]
            return Instances(str(number), Image.fromarray(scene.image), truth)

        return made

    what = "SIS on composed scenes"
    ours, baseline, counted = sis_row(bench, what, [case(number) for number in range(bench.scenes)])
    met = ours >= max(0.6, 2 * baseline)
    bench.add(f"{what} ({bench.scenes}): AP50", ours, baseline, "≥ .60 and 2 × baseline", met)
    bench.add("right number of instances, composed scenes", counted, None, "≥ .75", counted >= 0.75)


def photos(bench: Bench) -> None:
    def case(image: Any) -> Callable[[], Instances]:
        return lambda: Instances(
            image.name, load_image(image.image), [instance.mask for instance in image.instances]
        )

    cases = [case(image) for image in held_out_photos(bench.data)]
    what = "SIS on held-out COCO-train and balloon-train photos"
    ours, baseline, _ = sis_row(bench, what, cases)
    met = ours >= 1.5 * baseline and ours > 0
    bench.add(f"{what} ({len(cases)}): AP50", ours, baseline, "≥ 1.5 × baseline", met)


def animals(bench: Bench) -> None:
    cases = [
        Instances(image.name, load_image(image.image), [instance.mask for instance in image.instances])
        for image, _ in spread(held_out(bench.data, ANIMALS), bench.photos)
    ]
    what = "SIS on held-out VOC-animals, Animals7 and COCO photos"
    ours, baseline, counted = sis_row(bench, what, [partial(Instances.itself, case) for case in cases])
    must = max(0.68, 1.4 * baseline)
    bench.add(f"{what} ({len(cases)}): AP50", ours, baseline, "≥ .68 and 1.4 × baseline", ours >= must)
    bench.add(f"right number of instances, those ({len(cases)})", counted, None, "≥ .60", counted >= 0.6)


def held_out(data: Path, sets: Iterable[str]) -> list[Any]:
    """Photos of the validation fifths, with the category of each instance."""
    return [each for name in sets for each in select(data / name, "validation")]


def held_out_photos(data: Path) -> list[Any]:
    return [
        image for name in ("COCO-train", "balloon-train") for image, _ in select(data / name, "validation")
    ]


@dataclass(frozen=True)
class Group:
    """The photos of a CoSOD group, what they share, and where."""

    name: str
    images: list[Image.Image]
    truths: list[np.ndarray]
    synset: Synset


@dataclass(frozen=True)
class GroupScores:
    """Means over all photos: S-measure and IoU, ours and plain SOD's; photos in groups that were named."""

    s_measure: tuple[float, float]
    iou: tuple[float, float]
    named: float
    photos: int


def cosod_row(bench: Bench, what: str, groups: Sequence[Callable[[], Group]]) -> GroupScores:
    """Score groups, and print what was said of each."""
    ours, plain = SodMetrics(), SodMetrics()
    rows: list[tuple[str, ...]] = []
    named = 0
    for make in track(groups, what):
        group = make()
        results = bench.pipe.stream(group.images, Task.COSOD, reasoning=bench.reasoning)
        alone = bench.pipe.stream(group.images, Task.SOD, reasoning=bench.reasoning)
        each: list[tuple[float, float]] = []
        expression = ""
        for result, single, truth in zip(results, alone, group.truths, strict=True):
            expression = " ".join(result.expressions)
            each.append((ours.update(result.mask, truth).iou, plain.update(single.mask, truth).iou))
        is_right = is_named(expression, accepted_names(group.synset, bench.book))
        named += is_right * len(group.images)
        mean = np.mean(each, axis=0)
        rows.append(
            (
                group.name,
                str(len(each)),
                expression or "–",
                "yes" if is_right else "no",
                f"{mean[0]:.3f}",
                f"{mean[1]:.3f}",
            )
        )
    print(f"{what}:\n")
    print_table(("group", "photos", "said", "named", "IoU", "IoU of plain SOD"), rows)
    first, second = ours.compute(), plain.compute()
    return GroupScores(
        (first.s_measure, second.s_measure), (first.iou, second.iou), named / first.count, first.count
    )


def groups(bench: Bench) -> None:
    chosen = held_out_groups(bench)
    count = sum(len(samples) for _, samples in chosen)
    what = f"CoSOD on {len(chosen)} held-out synset groups ({count} photos)"

    def case(synset: Synset, samples: Sequence[Sample]) -> Callable[[], Group]:
        return lambda: Group(
            synset.name,
            [load_image(sample.image) for sample in samples],
            [load_mask(sample.mask) for sample in samples if sample.mask is not None],
            synset,
        )

    found = cosod_row(bench, what, [case(*each) for each in chosen])
    ours, baseline = found.s_measure
    bench.add(f"{what}: S-measure", ours, baseline, "≥ baseline", ours >= baseline)
    bench.add(f"{what}: IoU", *found.iou, "", None)


def held_out_groups(bench: Bench) -> list[tuple[Synset, list[Sample]]]:
    """The groups with the most held-out photos, two at least; of equal ones the first by synset number."""
    of_name = {sample.name: sample for sample in bench.splits[1]}
    listed = json.loads((bench.data / "DUTS" / "groups.json").read_text())
    synsets = load_synsets(bench.data / "DUTS")
    here = [
        (synsets[number], [of_name[name] for name in names if name in of_name])
        for number, names in sorted(listed.items())
    ]
    return sorted((each for each in here if len(each[1]) >= 2), key=lambda each: -len(each[1]))[:GROUPS]


def composed_group(bench: Bench, number: int) -> Group:
    made, synset = compose_group(
        bench.foregrounds, np.random.default_rng((SEED, number)), GROUP_SIZE, distractors=True
    )
    return Group(
        synset.name,
        [Image.fromarray(scene.image) for scene in made],
        [shared_mask(scene, synset) for scene in made],
        synset,
    )


def shared_mask(scene: Scene, synset: Synset) -> np.ndarray:
    """Where the objects of a synset are in a scene, bool (H, W)."""
    masks = [one.mask for one in scene.objects if one.synset == synset]
    return np.logical_or.reduce(masks) if masks else np.zeros(scene.image.shape[:2], bool)


def composed(bench: Bench) -> None:
    what = f"CoSOD on {GROUPS} composed groups of {GROUP_SIZE} with distractors"
    makers = [lambda number=number: composed_group(bench, number) for number in range(GROUPS)]
    found = cosod_row(bench, what, makers)
    ours, baseline = found.iou
    bench.add(f"{what}: IoU", ours, baseline, "≥ .60 and 1.5 × baseline", ours >= max(0.6, 1.5 * baseline))
    bench.add(f"{what}: shared object named", found.named, None, "", None)


def names(bench: Bench) -> None:
    chosen = held_out_groups(bench)
    accepted = [(accepted_names(synset, bench.book), len(samples)) for synset, samples in chosen]
    total = named = 0
    for (allowed, _), (_, samples) in zip(accepted, track(chosen, "names of groups"), strict=True):
        expressions = [
            " ".join(result.expressions)
            for result in bench.pipe.stream(
                [sample.image for sample in samples], Task.COSOD, reasoning=bench.reasoning
            )
        ]
        total += len(expressions)
        named += sum(is_named(expression, allowed) for expression in expressions)
    what = f"the shared object named, held-out synset groups ({total} photos)"
    bench.add(what, named / total, constant_share(accepted), "≥ .60", named >= 0.6 * total)

    known = [sample for sample in bench.splits[1] if sample.synset is not None]
    single = [(accepted_names(sample.synset, bench.book), 1) for sample in known if sample.synset is not None]
    results = bench.pipe.stream([sample.image for sample in known], Task.SOD, reasoning=bench.reasoning)
    right, said = 0, Counter[str]()
    for (allowed, _), result in zip(single, track(results, "names of photos", len(known)), strict=True):
        expression = " ".join(result.expressions)
        said[expression] += 1
        right += is_named(expression, allowed)
    what = f"the salient object named, held-out photos of known synsets ({len(known)})"
    bench.add(what, right / len(known), constant_share(single), "", None)
    print("most often: " + ", ".join(f"{name} ({count})" for name, count in said.most_common(12)) + "\n")


def constant_share(accepted: Sequence[tuple[frozenset[str], int]]) -> float:
    """The largest share that one name for everything gets; each set of names weighs as given."""
    votes: Counter[str] = Counter()
    for allowed, weight in accepted:
        votes.update(dict.fromkeys(allowed, weight))
    return max(votes.values()) / sum(weight for _, weight in accepted)


def latency(bench: Bench) -> None:
    image = photo_of_three(bench)
    if image is None:
        print("no photo was found on which the model names three instances\n")
    else:
        seconds = timed(bench, lambda: bench.pipe(image, Task.SIS, reasoning=bench.reasoning))
        what = f"one photo {image.width}x{image.height}, SIS with three instances: seconds"
        bench.add(what, seconds, None, f"≤ {SIS_SECONDS}", seconds <= SIS_SECONDS)
    images = composed_group(bench, 0).images
    seconds = timed(bench, lambda: bench.pipe(images, Task.COSOD, reasoning=bench.reasoning))
    what = f"a group of {GROUP_SIZE}, CoSOD: seconds"
    bench.add(what, seconds, None, f"≤ {GROUP_SECONDS}", seconds <= GROUP_SECONDS)


def photo_of_three(bench: Bench) -> Image.Image | None:
    """The first held-out photo, else composed scene, on which the model finds three instances."""

    def candidates() -> Iterator[Image.Image]:
        for photo in held_out_photos(bench.data):
            yield load_image(photo.image)
        for number in range(100):
            yield Image.fromarray(scene_number(bench.foregrounds, SEED, number).image)

    results = bench.pipe.stream(candidates(), Task.SIS, reasoning=bench.reasoning, batch_images=1)
    return next((result.image for result in results if len(result.instances) == 3), None)


def timed(bench: Bench, call: Callable[[], object]) -> float:
    """Median seconds of a call, after two rounds to warm up."""
    rounds = []
    for _ in range(bench.repeats + 2):
        start = perf_counter()
        call()
        rounds.append(perf_counter() - start)
    return median(rounds[2:])


def strict_parses(bench: Bench) -> None:
    """How many of all responses so far are exactly of their task's form."""
    for task, texts in bench.policy.texts.items():
        if texts:
            share = sum(parses(text, task) for text in texts) / len(texts)
            bench.add(f"strict parse, {task} ({len(texts)} responses)", share, None, "≥ .995", share >= 0.995)


def parses(text: str, task: Task) -> bool:
    try:
        parse_strict(text, task)
    except ResponseError:
        return False
    return True


ROWS: dict[str, Callable[[Bench], None]] = {
    "scenes": scenes,
    "photos": photos,
    "animals": animals,
    "groups": groups,
    "composed": composed,
    "names": names,
    "latency": latency,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with DUTS, COCO-train, balloon-train"
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated list; default all")
    parser.add_argument("--scenes", type=int, default=500, help="number of composed scenes (default 500)")
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds of a latency (default 15)")
    parser.add_argument("--fast", action="store_true", help="skip the reasoning")
    parser.add_argument("--policy", help="a policy folder instead of the embedded one")
    parser.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    parser.add_argument("--photos", type=int, default=300, help="photos of animals (default 300)")
    parser.add_argument("--onnx", type=Path, help="an SOD network for the baseline of SIS")
    parser.add_argument("--cache", type=Path, default=Path("cache/duts-tr-256/validation"))
    options = parser.parse_args(arguments)
    rows = options.rows.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        parser.error(f"unknown rows {', '.join(unknown)}: choose from {', '.join(ROWS)}")
    pipe = SaliencyPipeline.from_pretrained(options.policy, options.segmenter)
    other = Teacher(options.onnx) if options.onnx else None
    fixed = (options.data, options.cache, options.scenes, options.repeats, not options.fast, options.photos)
    bench = Bench(pipe, *fixed, other)
    for row in rows:
        ROWS[row](bench)
    strict_parses(bench)
    reasoning = "answers alone" if options.fast else "with reasoning"
    print(f"model {pipe.name} on {pipe.device}, {reasoning}\n")
    print_table(("what", "measured", "baseline", "target", "reached"), bench.table)


if __name__ == "__main__":
    main()
