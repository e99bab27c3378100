"""How many photos a second `saliency-r1 batch` does beside `saliency-r1 predict`, and its memory.

    python benchmarks/batch.py --photos 2000 --workers 2 --rounds 3

The photos are crops of scikit-image's pictures at 400x300, or those of --folder. `predict --json` does them
in one process, eight at a time, with torch's threads as they are by default; beside it stands a loop that
gives the pipeline one photo at a time (the first 200, loading left out). Both commands are processes of their
own, measured from start to end, loading included, alternating; the ratio is the median of the rounds'.
Memory is that of all processes of `batch` together, sampled: the proportional set size (shared pages are
counted once) where Linux tells it; its most over --memory-photos, and over all photos. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
from PIL import Image
from skimage import data

from evaluate_speed import family, memory

COMMAND = str(Path(sys.executable).with_name("saliency-r1"))
PICTURES = ("astronaut", "chelsea", "coffee", "rocket")
SIZE = (400, 300)


def draw_photos(folder: Path, count: int) -> None:
    """Random crops of real photos, no two alike."""
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(getattr(data, name)()) for name in PICTURES]
    folder.mkdir(parents=True)
    for number in range(count):
        picture = pictures[number % len(pictures)]
        width = int(picture.width * generator.uniform(0.5, 1))
        height = min(width * 3 // 4, picture.height)
        left = int(generator.integers(0, picture.width - width + 1))
        top = int(generator.integers(0, picture.height - height + 1))
        crop = picture.crop((left, top, left + width, top + height)).resize(SIZE)
        crop.save(folder / f"{number:05d}.jpg", quality=92)


def first(folder: Path, count: int, where: Path) -> Path:
    """A folder of links to the first photos of another."""
    where.mkdir()
    for path in sorted(folder.resolve().iterdir())[:count]:
        (where / path.name).symlink_to(path)
    return where


def run(command: Sequence[str], *, sample: bool = False) -> tuple[float, float]:
    """Seconds of a command from its start to its end, and if sampled the most memory of its processes, MB."""
    start = perf_counter()
    most = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while sample and process.poll() is None:
            most = max(most, sum(memory(one)[0] for one in family(process.pid)))
            sleep(0.5)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    if process.returncode:
        sys.exit(f"{' '.join(command[:3])} failed with exit code {process.returncode}:\n{errors[-1000:]}")
    return perf_counter() - start, most


def loop_rate(photos: Sequence[Path], *, reasoning: bool) -> float:
    """Photos a second of the pipeline that gets one at a time."""
    from saliency_r1 import SaliencyPipeline

    pipe = SaliencyPipeline.from_pretrained()
    pipe(photos[0], reasoning=reasoning)
    start = perf_counter()
    for photo in photos:
        pipe(photo, reasoning=reasoning)
    return len(photos) / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000, help="number of photos (default 2000)")
    parser.add_argument("--folder", type=Path, help="folder of photos instead of drawn ones")
    parser.add_argument("--memory-photos", type=int, default=500, help="default 500; 0 skips memory")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fast", action="store_true", help="without reasoning")
    options = parser.parse_args()
    fast = ["--fast"] if options.fast else []

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if options.folder is None:
            draw_photos(root / "drawn", options.photos)
        photos = first(options.folder or root / "drawn", options.photos, root / "photos")
        count = len(list(photos.iterdir()))

        def batch(source: Path, out: str, *, sample: bool = False) -> tuple[float, float]:
            where = ["--out", str(root / out), "--workers", str(options.workers)]
            return run([COMMAND, "batch", str(source), *where, *fast], sample=sample)

        few = 0.0
        if options.memory_photos:
            some = first(photos, options.memory_photos, root / "some")
            _, few = batch(some, "out-some", sample=True)
        loops, batches, most = [], [], 0.0
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
            loops.append(run([COMMAND, "predict", "--json", str(photos), *fast])[0])
            seconds, used = batch(photos, f"out-{turn}", sample=bool(options.memory_photos))
            batches.append(seconds)
            most = max(most, used)
        one_by_one = loop_rate(sorted(photos.iterdir())[:200], reasoning=not options.fast)
    ratio = median(loop / ours for loop, ours in zip(loops, batches, strict=True))
    print(f"{count} photos, {options.workers} workers, {options.rounds} rounds{', --fast' * options.fast}\n")
    print("| what | measured | target |")
    print("|---|--:|--:|")
    print(f"| `predict` in one process, photos a second | {count / median(loops):.2f} | |")
    print(f"| the pipeline in a loop, a photo at a time, photos a second | {one_by_one:.2f} | |")
    print(f"| `batch`, photos a second | {count / median(batches):.2f} | |")
    print(f"| `batch` / `predict`, median of the rounds | {ratio:.2f} | ≥ 1.6 |")
    print(f"| `batch` / loop | {count / median(batches) / one_by_one:.2f} | |")
    if options.memory_photos:
        print(f"| memory of all processes over {options.memory_photos} photos, MB | {few:.0f} | |")
        print(f"| memory of all processes over {count} photos, MB | {most:.0f} | |")
        print(f"| growth | {most / few - 1:+.1%} | ≤ 5 % |")


if __name__ == "__main__":
    main()
