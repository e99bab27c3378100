"""What several photos cost each segmenter together and one by one: prints a Markdown table.

    python benchmarks/segmenter_photos.py --photos 8 --repeats 3

The large segmenters are those of segmenter_expressions.py: real architectures with random weights, as deep as
published and about an eighth as wide. Both ways are measured in turn within one run, in seconds of the
processor; each is the least of its repeats. On a CPU a pass over several photos saves little but the
overhead of each layer; a GPU that one photo does not fill gains more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from segmenter_expressions import TEXTS, small_segmenters


def measure(segmenter: Any, photos: list[Any], repeats: int, clock: Any) -> tuple[float, float, float]:
    """Seconds of all photos together and of a call for each, and by how much their masks differ at most."""
    texts = [[TEXTS[index % len(TEXTS)]] for index in range(len(photos))]
    pairs = list(zip(photos, texts, strict=True))

    def together() -> list[Any]:
        return segmenter.segment_many(segmenter.encode_many(photos), texts, [False] * len(photos))

    def apart() -> list[Any]:
        return [segmenter.segment(segmenter.encode(photo), words) for photo, words in pairs]

    together()  # the first call allocates
    seconds: dict[Any, list[float]] = {together: [], apart: []}
    masks = {}
    for _ in range(repeats):
        for call, taken in seconds.items():
            start = clock()
            masks[call] = call()
            taken.append(clock() - start)
    difference = max(
        float(np.abs(one.probabilities - other.probabilities).max())
        for one, other in zip(masks[together], masks[apart], strict=True)
    )
    return min(seconds[together]), min(seconds[apart]), difference


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=8, help="photos at a time (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of both ways (default 3)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    import torch
    from PIL import Image
    from skimage import data
    from transformers.utils import logging

    from saliency_r1.segmenters.load_segmenter import load_segmenter

    logging.disable_progress_bar()
    coffee = Image.fromarray(data.coffee()).resize((400, 300))
    photos = [coffee.rotate(10 * number) for number in range(options.photos)]
    clock = process_time if options.device == "cpu" else perf_counter
    threads = torch.get_num_threads()
    print(f"{len(photos)} photos of 400x300, an expression each, {options.device}, {threads} threads\n")
    print("| segmenter | together | a call each | ratio | largest difference |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in small_segmenters(Path(folder)).items():
            segmenter = load_segmenter(make(), options.device)
            one, each, difference = measure(segmenter, photos, options.repeats, clock)
            print(
                f"| {name} | {one:.2f} s | {each:.2f} s | {one / each:.2f} | {difference:.0e} |", flush=True
            )


if __name__ == "__main__":
    main()
