"""How long photos of many megapixels take, file to files, and how much memory: prints a Markdown table.

    python benchmarks/large_photos.py --repeats 7 --threads 2

The photo is one that scikit-image carries, enlarged, with the noise of a sensor, as JPEG. Each row is a
process of its own: it loads the pipeline, does the photo twice to warm up, then measures. The command line is
started cold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

PEAK_UNITS_PER_MB = 1e6 if sys.platform == "darwin" else 1024

MEASURE = """
import json, resource, sys, time
from saliency_r1 import SaliencyPipeline
photo, out, repeats, reasoning = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
pipe = SaliencyPipeline.from_pretrained(device="cpu")
rows = []
for _ in range(repeats + 2):
    start = time.perf_counter()
    result = pipe(photo, reasoning=bool(reasoning))
    result.save(out, overwrite=True)
    rows.append((time.perf_counter() - start, result.seconds))
print(json.dumps({"rows": rows[2:], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""

DRAW = """
import sys
import numpy as np
from PIL import Image
from skimage import data
width, height = int(sys.argv[2]), int(sys.argv[3])
photo = Image.fromarray(data.chelsea()).resize((width, height), Image.Resampling.BICUBIC)
noise = np.random.default_rng(0).normal(0, 3, (height, width, 1))
pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
Image.fromarray(pixels).save(sys.argv[1], quality=90)
"""


def python(code: str, *arguments: str, threads: int = 2) -> str:
    """Run code in a process of its own and return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def command_line(photo: Path, out: Path, threads: int) -> tuple[float, float, float]:
    """Seconds of `saliency-r1 predict` from start to end, those it tells, and its peak in MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "saliency_r1", "predict", str(photo), "--out", str(out), "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"predict ended with {process.returncode}")
    seconds = perf_counter() - start
    told = json.loads(next(out.glob("*.json")).read_text())["seconds"]["total"]
    return seconds, told, usage.ru_maxrss / PEAK_UNITS_PER_MB


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", default=["4000x3000", "6000x4000"], metavar="WIDTHxHEIGHT")
    options = parser.parse_args()
    print(f"{options.threads} threads, medians of {options.repeats}\n")
    print("| photo | path | s, file to all four files | of it reading and models | writing | peak MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            width, height = size.split("x")
            photo = Path(folder, f"{size}.jpg")
            python(DRAW, str(photo), width, height)
            megapixels = f"{int(width) * int(height) / 1e6:.0f} megapixels"
            for name, reasoning in (("pipeline, warm, `--fast`", 0), ("pipeline, warm", 1)):
                arguments = [str(photo), str(Path(folder, "out")), str(options.repeats)]
                found = json.loads(python(MEASURE, *arguments, str(reasoning), threads=options.threads))
                whole = median(row[0] for row in found["rows"])
                writing = median(row[1]["writing"] for row in found["rows"])
                models = median(row[1]["total"] - row[1]["writing"] for row in found["rows"])
                peak = found["peak"] / PEAK_UNITS_PER_MB
                print(f"| {megapixels} | {name} | {whole:.2f} | {models:.2f} | {writing:.2f} | {peak:.0f} |")
            out = Path(folder, f"command-{size}")
            runs = [command_line(photo, out, options.threads) for _ in range(3)]
            seconds, told, peak = (median(run[part] for run in runs) for part in range(3))
            print(f"| {megapixels} | command line, tells {told:.2f} s | {seconds:.2f} | | | {peak:.0f} |")


if __name__ == "__main__":
    main()
