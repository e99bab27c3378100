"""What the 8-bit weights of the embedded language model change: texts, masks and time, as a Markdown table.

    python benchmarks/eight_bits.py --data ../shared/data/DUTS

The graphs of the embedded policy are written a second time with all weights as they are stored. Both answer
the same questions about held-out photos of DUTS-TR, in turns, so that the seconds compare. The condition for
8 bits was: texts equal in 98 % or more, and masks that move by less than .001 in MAE.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import numpy as np
from rich.progress import track

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.duts import load_duts, split
from saliency_r1.nano import POLICY_FOLDER
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.segmenters.onnx import OnnxSegmenter
from saliency_r1.sharing.onnx_graphs import write_policy_graphs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds DUTS-TR")
    parser.add_argument("--photos", type=int, default=500, help="number of photos (default 500)")
    options = parser.parse_args()
    photos = [sample.image for sample in split(load_duts(options.data))[1][: options.photos]]
    head = "equal texts | equal expressions | masks move, MAE | seconds, 8 bits | seconds, as stored"
    print(f"| task | photos | {head} |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(POLICY_FOLDER, Path(name, "policy"))
        write_policy_graphs(folder)
        segmenter = OnnxSegmenter(None, "cpu")
        pipes = [SaliencyPipeline(OnnxPolicy(each, "cpu"), segmenter) for each in (None, folder)]
        for task in ("sod", "sis"):
            texts, expressions, moved, times = [], [], [], []
            for number, photo in enumerate(track(photos, task)):
                found, spent = {}, {}
                for side in (number % 2, 1 - number % 2):
                    start = perf_counter()
                    found[side] = pipes[side](photo, task)
                    spent[side] = perf_counter() - start
                one, other = found[0], found[1]
                texts.append(one.text == other.text)
                expressions.append(one.expressions == other.expressions)
                moved.append(float(np.abs(one.mask - other.mask).mean()))
                times.append(spent)
            own, before = (median(pair[side] for pair in times) for side in (0, 1))
            shares = f"{mean(texts):.3f} | {mean(expressions):.3f} | {mean(moved):.5f}"
            print(f"| {task} | {len(photos)} | {shares} | {own:.3f} | {before:.3f} |", flush=True)


if __name__ == "__main__":
    main()
