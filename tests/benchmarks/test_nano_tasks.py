"""The benchmark of SIS and CoSOD, with a policy and a segmenter whose right answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from repository import module_at
from saliency_r1.data.samples import Synset
from saliency_r1.data.true_instances import encode
from saliency_r1.language.naming import NameBook
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.response import Response
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.tasks import Task
from stubs import PolicyStub

COLOURS = {"red": (220, 20, 20), "green": (20, 160, 40), "blue": (30, 40, 220)}
BLUE = Synset("n1", "blue", ("azure",), ("shade", "colour"))


def where(image: Image.Image, colour: str) -> np.ndarray:
    if colour == "object":
        return np.logical_or.reduce([where(image, each) for each in COLOURS])
    return (np.asarray(image) == COLOURS[colour]).all(axis=2)


class Knowing(PolicyStub):
    """Names in SIS all colours, in CoSOD the shared one, in SOD the largest; and finds what is named."""

    name = "knowing"

    def answer(self, images: Sequence[Image.Image], task: Task, reasoning: bool) -> PolicyOutput:
        areas = {colour: min(int(where(image, colour).sum()) for image in images) for colour in COLOURS}
        there = sorted((colour for colour in COLOURS if areas[colour]), key=lambda colour: -areas[colour])
        named = tuple(f"the {colour}" for colour in (there if task is Task.SIS else there[:1]))
        text = Response("", named, task.spec.tag).text
        # Falsely sure of what is last: ranking by the policy alone has to cost precision.
        sure = tuple(0.1 + 0.2 * number for number in range(len(named)))
        return PolicyOutput(text, [], None, 0.5, sure)

    def encode(self, image: Image.Image) -> Image.Image:
        return image

    def segment(
        self, encoded: Image.Image, expressions: Sequence[str], *, instances: bool = False
    ) -> Segmentation:
        masks = [where(encoded, expression.split()[-1]) for expression in expressions]
        # The last mask of several is half of what it should be.
        if len(masks) > 2:
            masks[-1] = masks[-1] & (np.arange(encoded.width) % 3 == 0)
        scores = [0.3 if len(masks) > 2 and index == len(masks) - 1 else 0.9 for index in range(len(masks))]
        return Segmentation(np.stack(masks).astype(np.float32), np.array(scores, np.float32))


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    return module_at("benchmarks/nano_tasks.py")


@pytest.fixture
def bench(benchmark_module: ModuleType, tmp_path: Path) -> object:
    pipe = SaliencyPipeline(Knowing(), Knowing())
    sizes = {"scenes": 2, "repeats": 1, "photos": 2}
    made = benchmark_module.Bench(pipe, tmp_path, tmp_path, reasoning=True, other=None, **sizes)
    made.book = NameBook({BLUE: 9})
    return made


def drawn(*colours: str) -> Image.Image:
    """A square of each colour, each smaller than the one before; the first two touch."""
    pixels = np.full((60, 90, 3), 255, np.uint8)
    for index, colour in enumerate(colours):
        side = 24 - 4 * index
        left = 24 * index if index < 2 else 60
        pixels[10 : 10 + side, left : left + side] = COLOURS[colour]
    return Image.fromarray(pixels)


def case(benchmark_module: ModuleType, key: str, *colours: str) -> object:
    image = drawn(*colours)
    truth = [encode(where(image, colour)) for colour in colours]
    return lambda: benchmark_module.Instances(key, image, truth)


def test_instances_are_scored_beside_components_of_the_sod_mask(
    benchmark_module: ModuleType, bench: object, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [case(benchmark_module, "a", "red", "green"), case(benchmark_module, "b", "red"),
             case(benchmark_module, "c")]  # fmt: skip
    ours, baseline, counted = benchmark_module.sis_row(bench, "drawn", cases)
    assert (ours, counted) == (1.0, 1.0)
    # Of three instances plain SOD finds two, the largest of each photo.
    assert baseline == pytest.approx(67 / 101)
    printed = capsys.readouterr().out
    assert "| 2 | 1 | 1.0000 | 0.0000 |" in printed
    assert "| 0 | 1 | 1.0000 | 1.0000 |" in printed
    assert "| all | 3 | 1.0000 | 0.6667 |" in printed


def test_a_score_that_ranks_badly_costs_precision(
    benchmark_module: ModuleType, bench: object, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark_module.sis_row(bench, "drawn", [case(benchmark_module, "a", "red", "green", "blue")])
    printed = capsys.readouterr().out.splitlines()
    ap50 = {line.split("|")[1].strip(): float(line.split("|")[2]) for line in printed if "0." in line[:90]}
    own, policy = ap50["segmenter's expected IoU"], ap50["policy's confidence in the expression"]
    assert own == pytest.approx(67 / 101, abs=1e-4)
    assert policy < own
    assert ap50["as shipped"] in ap50.values()


def test_groups_are_scored_beside_plain_sod(
    benchmark_module: ModuleType, bench: object, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [drawn("red", "blue"), drawn("green", "blue")]
    truths = [where(image, "blue") for image in images]
    scores = benchmark_module.cosod_row(
        bench, "drawn", [lambda: benchmark_module.Group("blue", images, truths, BLUE)]
    )
    assert scores.iou == (1.0, 0.0)
    assert scores.s_measure[0] > scores.s_measure[1]
    assert (scores.named, scores.photos) == (1.0, 2)
    assert "| blue | 2 | the blue | yes | 1.000 | 0.000 |" in capsys.readouterr().out


def test_every_response_counts_for_the_strict_parses(benchmark_module: ModuleType, bench: object) -> None:
    bench.pipe([drawn("red")] * 3, "sis")
    bench.pipe([drawn("red")] * 11, "cosod")
    bench.policy.texts[Task.SIS].append("the red")
    benchmark_module.strict_parses(bench)
    assert [row[:2] + row[-1:] for row in bench.table] == [
        ("strict parse, sis (4 responses)", "0.7500", "no"),
        ("strict parse, cosod (3 responses)", "1.0000", "yes"),
    ]


def test_the_best_constant_name(benchmark_module: ModuleType) -> None:
    accepted = [(frozenset({"dog", "animal"}), 3), (frozenset({"cat", "animal"}), 2), (frozenset({"cup"}), 5)]
    assert benchmark_module.constant_share(accepted) == 0.5
    assert benchmark_module.constant_share(accepted[:2]) == 1.0


def test_unknown_rows_are_refused(benchmark_module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_module.main(["--data", "nowhere", "--rows", "scenes,depth"])
    assert "unknown rows depth: choose from scenes, photos" in capsys.readouterr().err
