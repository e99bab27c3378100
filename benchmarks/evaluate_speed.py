"""How long `saliency-r1 evaluate sod` takes beside a plain loop over pysodmetrics, and its memory.

    python benchmarks/evaluate_speed.py --data DUTS --pairs 500 --memory-pairs 5000

The pairs are DUTS-TR masks with predictions made of them (blurred, displaced, noisy). The plain loop reads
each pair with OpenCV and gives it to every metric object of the library, in one process. Both are measured as
processes of their own, from their start to their end, alternating; times are medians. Memory is that of all
processes of `evaluate` together, sampled: the proportional set size (shared pages are counted once) where
Linux tells it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
from PIL import Image, ImageFilter

COMMAND = str(Path(sys.executable).with_name("saliency-r1"))

PLAIN_LOOP = """
import sys, warnings
from pathlib import Path
import cv2
import py_sod_metrics as library
masks, maps = map(Path, sys.argv[1:])
mae, s, wf, e = library.MAE(), library.Smeasure(), library.WeightedFmeasure(), library.Emeasure()
both = dict(with_dynamic=True, with_adaptive=True)
f = library.FmeasureV2({
    "f": library.FmeasureHandler(**both, beta=0.3),
    "iou": library.IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True),
    "precision": library.PrecisionHandler(with_dynamic=True, with_adaptive=False),
    "recall": library.RecallHandler(with_dynamic=True, with_adaptive=False),
})
for path in sorted(masks.iterdir()):
    truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    prediction = cv2.imread(str(maps / path.name), cv2.IMREAD_GRAYSCALE)
    for metric in (mae, s, wf, e, f):
        metric.step(prediction, truth)
print(mae.get_results(), s.get_results(), wf.get_results(), e.get_results()["em"]["adp"])
print(f.get_results()["iou"])
"""


def make_pairs(duts: Path, root: Path, count: int) -> None:
    """A data set of links to DUTS-TR, and predictions made of its masks."""
    duts = duts.resolve()  # links are read from their own folder
    masks = sorted((duts / "DUTS-TR" / "DUTS-TR-Mask").iterdir())
    images = {path.stem: path for path in (duts / "DUTS-TR" / "DUTS-TR-Image").iterdir()}
    for folder in ("images", "masks", "maps"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for mask in masks[:: max(1, len(masks) // count)][:count]:
        (root / "masks" / mask.name).symlink_to(mask)
        (root / "images" / images[mask.stem].name).symlink_to(images[mask.stem])
        soft = Image.open(mask).convert("L").filter(ImageFilter.GaussianBlur(int(generator.integers(1, 8))))
        values = np.roll(np.asarray(soft, float), generator.integers(-15, 16, 2), (0, 1))
        values = values * generator.uniform(0.6, 1) + generator.normal(0, 4, values.shape)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(root / "maps" / f"{mask.stem}.png")


def seconds(command: Sequence[str]) -> float:
    """How long a command takes, from its start to its end."""
    start = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr}")
    return perf_counter() - start


def evaluate_command(root: Path, out: Path, workers: int) -> list[str]:
    """The command line that scores the pairs."""
    given = ["--data", str(root), "--predictions", str(root / "maps"), "--out", str(out), "--overwrite"]
    return [COMMAND, "evaluate", "sod", *given, "--workers", str(workers)]


def peak_memory(command: Sequence[str]) -> tuple[float, float]:
    """The most memory in MB of a command and its children together: proportional and resident set size."""
    proportional = resident = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = [memory(one) for one in family(process.pid)]
            proportional = max(proportional, sum(size[0] for size in sizes))
            resident = max(resident, sum(size[1] for size in sizes))
            sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} failed with exit code {process.returncode}")
    return proportional, resident


def family(process: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def memory(process: int) -> tuple[float, float]:
    """Proportional and resident set size of a process in MB (1e6 bytes)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {
        line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines[1:] if line.endswith("kB")
    }
    return sizes.get("Pss", 0.0), sizes.get("Rss", 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the DUTS folder")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--memory-pairs", type=int, default=5000, help="0 skips memory")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pairs(options.data, root / "pairs", options.pairs)
        plain = [
            sys.executable,
            "-c",
            PLAIN_LOOP,
            str(root / "pairs" / "masks"),
            str(root / "pairs" / "maps"),
        ]
        ours = evaluate_command(root / "pairs", root / "run", options.workers)
        times = [(seconds(plain), seconds(ours)) for _ in range(options.repeats)]
        loop, evaluation = (median(column) for column in zip(*times, strict=True))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"{options.pairs} pairs, {cores} cores, {options.workers} workers, {options.repeats} repeats\n")
        print("| what | measured | target |")
        print("|---|--:|--:|")
        print(f"| plain loop, seconds | {loop:.2f} | |")
        print(f"| evaluate with all its outputs, seconds | {evaluation:.2f} | |")
        print(f"| ratio | {evaluation / loop:.2f} | ≤ 0.55 |")
        if options.memory_pairs:
            make_pairs(options.data, root / "many", options.memory_pairs)
            command = evaluate_command(root / "many", root / "run-many", options.workers)
            proportional, resident = peak_memory(command)
            title = f"peak memory of all processes, {options.memory_pairs:,} pairs, MB"
            print(f"| {title} | {proportional:.0f} | ≤ 800 |")
            print(f"| the same with shared pages counted in each process, MB | {resident:.0f} | |")


if __name__ == "__main__":
    main()
