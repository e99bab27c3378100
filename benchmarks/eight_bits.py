"""What 8-bit weights would change: texts, masks, file size and time, as a Markdown table.

    python benchmarks/eight_bits.py --data ../shared/data/DUTS

onnxruntime's dynamic quantisation is applied to every matrix product with weights of the embedded model's
graphs. Answers of SOD and SIS to validation photos of DUTS-TR are compared with those of the graphs as they
are. The condition for using such weights was: texts equal in 98 % or more, and masks that move by less than
.001 in MAE.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from saliency_r1 import SaliencyPipeline
from saliency_r1.data.duts import load_duts, split
from saliency_r1.nano import EMBEDDED_SEGMENTER, POLICY_FOLDER
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.segmenters.onnx import OnnxSegmenter

PARTS = {
    "language model": ("policy/language.onnx",),
    "all linear layers": (
        "policy/language.onnx",
        "policy/vision.onnx",
        "policy/names.onnx",
        "segmenter/encode.onnx",
        "segmenter/segment.onnx",
    ),
}


def quantised(graphs: tuple[str, ...], folder: Path) -> tuple[Path, float]:
    """Copy the embedded model with some graphs in 8 bits; return its folder, and the MB of these graphs."""
    for name, source in (("policy", POLICY_FOLDER), ("segmenter", EMBEDDED_SEGMENTER)):
        shutil.copytree(source, folder / name)
    size = 0
    for graph in graphs:
        path = folder / graph
        options = onnxruntime.SessionOptions()
        # Its weights must be constants of the graph, which this folding makes of them.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folder / "whole.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folder / "whole.onnx", path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
        size += path.stat().st_size
    return folder, size / 1e6


def pipeline(folder: Path | None) -> SaliencyPipeline:
    """Load the embedded model, or a copy of it."""
    policy, segmenter = (None, None) if folder is None else (folder / "policy", folder / "segmenter")
    return SaliencyPipeline(OnnxPolicy(policy, "cpu"), OnnxSegmenter(segmenter, "cpu"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds DUTS-TR")
    parser.add_argument("--photos", type=int, default=100, help="number of photos (default 100)")
    options = parser.parse_args()
    photos = [sample.image for sample in split(load_duts(options.data))[1][: options.photos]]
    plain = pipeline(None)
    print("| 8-bit part | size, MB | equal texts | masks move, MAE | seconds a photo | plain |")
    print("|---|---|---|---|---|---|")
    for title, graphs in PARTS.items():
        with tempfile.TemporaryDirectory() as name:
            folder, size = quantised(graphs, Path(name))
            small = pipeline(folder)
            equal, moved, times = [], [], []
            for photo in photos:
                for task in ("sod", "sis"):
                    start = perf_counter()
                    one = plain(photo, task)
                    middle = perf_counter()
                    other = small(photo, task)
                    times.append((perf_counter() - middle, middle - start))
                    equal.append(one.text == other.text)
                    moved.append(float(np.abs(one.mask - other.mask).mean()))
            own, before = (median(pair[side] for pair in times) for side in (0, 1))
            cells = (title, f"{size:.1f}", f"{mean(equal):.3f}", f"{mean(moved):.5f}", f"{own:.2f}")
            print(f"| {' | '.join(cells)} | {before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
