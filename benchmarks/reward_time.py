"""What comparing masks costs a step of reinforcement learning, and how far a smaller size moves rewards.

    python benchmarks/reward_time.py --prompts 16 --threads 4

Photos of 1280x960 with an ellipse each, a true mask that the answer's mask nearly fits, SOD. The
segmenter of the first table answers at once, so that only what follows it is timed: masks of the photo's size
made from its coarse ones, true masks decoded, IoU and S-measure. The first line is the way before: arrays of
the photo's size, pysodmetrics, one photo after the other. The second table is the whole reward with the nano
segmenter. The last one says how far rewards move with the size, over ellipses of every size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.data.true_instances import encode
from saliency_r1.response import Response
from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
from saliency_r1.rewards.segmenting import CachedSegmenter
from saliency_r1.rewards.sod import sod_parts, weighted_mean
from saliency_r1.segmenters.batched import BatchedSegmenter, Rows
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task

MOST = 0.3
"""Share of the earlier time."""

SIDES = (None, 512, 384, 256)


class ReadySegmenter(BatchedSegmenter):
    """Has a coarse mask of each photo ready, as a network leaves it; it is brought to the asked size."""

    name = "ready"

    def __init__(self, logits: dict[Any, torch.Tensor], device: torch.device) -> None:
        self.device = device
        self._logits = {key: value.to(device) for key, value in logits.items()}

    def encode_many(self, images: Sequence[Image.Image]) -> list[Any]:
        return [(self._logits[image.getpixel((0, 0))], (image.height, image.width)) for image in images]

    def find_rows(self, photos: Sequence[Any], texts: Sequence[str], instances: Sequence[bool]) -> Rows:
        return torch.cat([logits for logits, _ in photos]), torch.ones(len(texts), device=self.device)

    def size_of(self, encoded: Any) -> tuple[int, int]:
        return encoded[1]


def drawn(count: int, size: tuple[int, int]) -> tuple[list[Image.Image], list[PromptExample], dict]:
    """Photos, their questions, and the coarse logits of nearly right masks by the photo's first pixel."""
    rng = np.random.default_rng(0)
    photos, questions, logits = [], [], {}
    for number in range(count):
        key = (number % 256, number // 256, 0)
        photo, mask = Image.new("RGB", size, (60, 120, 60)), Image.new("1", size)
        left, top = rng.uniform(0, 0.7, 2) * size
        wide, tall = rng.uniform(0.02, 0.6, 2) ** 1.5 * size + 2
        box = (left, top, left + wide, top + tall)
        ImageDraw.Draw(photo).ellipse(box, fill=(210, 40, 30))
        ImageDraw.Draw(mask).ellipse(box, fill=1)
        photo.putpixel((0, 0), key)
        photos.append(photo)
        true = np.asarray(mask)
        near = np.roll(true, (int(0.06 * tall), int(0.05 * wide)), (0, 1))
        small = Image.fromarray(near.astype(np.uint8) * 255).resize((256, 256), Image.Resampling.BOX)
        coarse = torch.from_numpy(np.asarray(small) / np.float32(255)).clamp(0.01, 0.99)
        logits[key] = (coarse.logit() + torch.randn(256, 256) * 0.3)[None]
        questions.append(
            PromptExample(str(number), Task.SOD, "What?", (f"{number}.png",), ((encode(true),),))
        )
    return photos, questions, logits


def before(segmenter: Any, photos: list[Image.Image], questions: list[PromptExample]) -> list[float]:
    """The rewards as they were computed before: arrays of the photo's size and pysodmetrics."""
    weights = RewardWeights()
    rewards = []
    encoded = segmenter.encode_many(photos)
    for found, question in zip(
        segmenter.segment_many(encoded, [["the red ball"]] * len(photos), [False] * len(photos)),
        questions,
        strict=True,
    ):
        mask = np.rint(found.probabilities * np.float32(255)).astype(np.uint8) / np.float32(255)
        union = mask.max(axis=0, initial=0)
        truth = np.logical_or.reduce(question.truths(0))
        quality = weighted_mean(*sod_parts(union, truth), weights.iou, weights.s_measure)
        rewards.append((weights.format + quality) / (weights.format + 1))
    return rewards


def after(
    segmenter: Any, photos: list[Image.Image], questions: list[PromptExample], side: int | None
) -> list[float]:
    """The rewards as training computes them, with an empty memory."""
    reward = SaliencyReward(CachedSegmenter(segmenter, longest=side))
    texts = [Response("Why.", ("the red ball",), "rg").text] * len(photos)
    return [one.reward for one in reward.score(texts, questions, [[photo] for photo in photos])]


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The least of some calls, after one to warm up."""
    call()
    taken = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return min(taken)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--prompts", type=int, default=16)
    arguments.add_argument("--size", type=int, nargs=2, default=(1280, 960), help="width and height")
    arguments.add_argument("--threads", type=int, default=4)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--moved", type=int, default=200, help="photos for the change of rewards")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    size = tuple(options.size)
    photos, questions, logits = drawn(options.prompts, size)
    ready = ReadySegmenter(logits, device)
    nano = NanoSegmenter.from_pretrained(device=options.device)
    print(f"{options.prompts} prompts of {size[0]}x{size[1]}, {device}, {options.threads} threads\n")
    segmenters: list[tuple[str, Any]] = [
        ("masks compared", ready),
        ("the whole reward, nano segmenter", nano),
    ]
    for title, segmenter in segmenters:
        print(f"| {title} | seconds | of before |\n|---|---|---|")
        base = seconds(partial(before, segmenter, photos, questions), options.repeats)
        print(f"| before: arrays, pysodmetrics | {base:.3f} | 1 |")
        for side in SIDES:
            taken = seconds(partial(after, segmenter, photos, questions, side), options.repeats)
            name = "the photo's size" if side is None else f"reward_side={side}"
            print(f"| {name} | {taken:.3f} | {taken / base:.2f} |", flush=True)
            if segmenter is ready and side == 384:
                share = taken / base
        print()
    photos, questions, logits = drawn(options.moved, size)
    ready = ReadySegmenter(logits, device)
    exact = np.array(before(ready, photos, questions))
    print("| rewards | mean difference | largest |\n|---|---|---|")
    for side in SIDES:
        moved = np.abs(np.array(after(ready, photos, questions, side)) - exact)
        name = "the photo's size" if side is None else f"reward_side={side}"
        print(f"| {name} | {moved.mean():.4f} | {moved.max():.4f} |", flush=True)
    print(
        f"\nTarget with reward_side=384: at most {MOST} of the earlier time, measured {share:.2f}: ", end=""
    )
    print("reached" if share <= MOST else "not reached")


if __name__ == "__main__":
    main()
