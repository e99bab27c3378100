"""Rewards a second, with what the reward path remembers and without.

    python benchmarks/reward_throughput.py --prompts runs/prompts/validation.jsonl --root ../shared/data/DUTS

The completions are the policy's own, G sampled for each prompt. Without: one reward after the other, each
encoding its image. With: as in training, a batch at a time, with an empty memory at the start of each round.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

from saliency_r1.data.prompt_examples import read_prompts
from saliency_r1.data.samples import spread
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.rewards.combined import SaliencyReward
from saliency_r1.rewards.segmenting import MEMORY_BYTES, CachedSegmenter
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.training.reinforcement.questions import Photos

LEAST_TIMES = 4
"""For the largest group."""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--prompts", type=Path, required=True, help="JSON lines of `data prompts`")
    arguments.add_argument("--root", type=Path, required=True, help="where their photo paths begin")
    arguments.add_argument("--count", type=int, default=24, help="prompts, spread over all")
    arguments.add_argument("--group", type=int, nargs="*", default=[1, 4, 8])
    arguments.add_argument("--repeats", type=int, default=3, help="the median of so many rounds counts")
    arguments.add_argument("--policy", help="a policy folder in place of the embedded one")
    arguments.add_argument("--device", default="auto")
    options = arguments.parse_args()
    policy = TransformersPolicy.from_pretrained(options.policy, device=options.device)
    segmenter = NanoSegmenter.from_pretrained(device=options.device)
    photos = Photos(options.root, lambda image: image)
    examples = spread(read_prompts(options.prompts), options.count)
    images = [[photos(key) for key in example.keys] for example in examples]
    most = max(options.group)
    texts = [
        [
            output.text
            for output in policy.respond(
                [photo] * most, example.task, reasoning=example.reasoning, do_sample=True
            )
        ]
        for example, photo in zip(examples, images, strict=True)
    ]
    print(f"{len(examples)} prompts, {segmenter.name} segmenter on {segmenter.device}\n")
    print("| G | rewards | without, 1/s | with, 1/s | times | images encoded | pairs segmented of asked |")
    print("|---|---|---|---|---|---|---|")
    for group in sorted(options.group):
        rows = [
            (text, example, photo)
            for some, example, photo in zip(texts, examples, images, strict=True)
            for text in some[:group]
        ]
        alone: list[float] = []
        together: list[float] = []
        for _ in range(options.repeats):
            plain = SaliencyReward(CachedSegmenter(segmenter, memory_bytes=0))
            start = perf_counter()
            one_by_one = [plain.score([text], [example], [photo])[0].reward for text, example, photo in rows]
            alone.append(perf_counter() - start)
            remembering = SaliencyReward(CachedSegmenter(segmenter, MEMORY_BYTES))
            start = perf_counter()
            scored = remembering.score(*(list(column) for column in zip(*rows, strict=True)))
            together.append(perf_counter() - start)
        difference = max(abs(one.reward - other) for one, other in zip(scored, one_by_one, strict=True))
        assert difference < 1e-3, difference
        counts = remembering.segmenter.counts
        slow, fast = (len(rows) / median(seconds) for seconds in (alone, together))
        cells = (group, len(rows), f"{slow:.1f}", f"{fast:.1f}", f"{fast / slow:.1f}", counts.encoded)
        print(f"| {' | '.join(map(str, cells))} | {counts.segmented} of {counts.asked} |")
        times = fast / slow
    print(f"\nG = {group}: target {LEAST_TIMES} times or more, measured {times:.1f}: ", end="")
    print("reached" if times >= LEAST_TIMES else "not reached")


if __name__ == "__main__":
    main()
