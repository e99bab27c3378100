"""The light installation: its size, the first mask, and onnxruntime beside torch, as a Markdown table.

    python benchmarks/light.py --peer u2netp.onnx --data ../shared/data/DUTS
    python benchmarks/light.py --peer u2netp.onnx --data ../shared/data/DUTS --photos 4 --runs 2   # a try

It runs the first command of the README twice in clean virtual environments; the second finds all packages
in pip's cache. The first mask is that of `predict --fast` of this environment on one photo, from the start
of the process to its end, all four files written. Its peer is a script that opens a network with
onnxruntime, and writes the mask. Both are run in turn, and times are medians. Numbers of SOD are those of
validation photos of DUTS-TR, those of SIS and CoSOD of scenes that are composed of them. Server and batch are
measured by `serve_load.py` and `batch.py`, whose tables follow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from latency import PEAK_UNITS_PER_MB

ROOT = Path(__file__).resolve().parent.parent
PEER = """
import sys
import numpy as np
import onnxruntime
from PIL import Image

photo = Image.open(sys.argv[2]).convert("RGB")
pixels = np.asarray(photo.resize((320, 320)), np.float32)
pixels = (pixels / pixels.max() - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
mask = session.run(None, {name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
mask = (mask - mask.min()) / (mask.max() - mask.min())
Image.fromarray((mask * 255).astype(np.uint8)).resize(photo.size).save(sys.argv[3])
"""
"""Uses a network of U²-Net's form, as a small program would."""


def run(command: Sequence[str], **options: str) -> tuple[float, float]:
    """Seconds of a command from its start to its end, and its peak memory in GiB."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    start = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env={**environment, **options}
    ) as process:
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{errors[-2000:]}")
    return perf_counter() - start, usage.ru_maxrss / PEAK_UNITS_PER_MB / 1024


def installed(folder: Path) -> tuple[float, Path]:
    """Run the first command of the README; return its seconds, and the folder of the environment."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
    first = f"{venv}/bin/pip install -q -c constraints.txt {ROOT} && {venv}/bin/saliency-r1 demo"
    seconds, _ = run(["bash", "-c", f"{first} --out {folder}/demo"])
    return seconds, venv


def megabytes(folder: Path) -> float:
    """Space that a folder takes on disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def first_masks(venv: Path, peer: Path, folder: Path, runs: int) -> list[tuple[str, str]]:
    """Rows of one photo from the shell."""
    photo = ROOT / "src" / "saliency_r1" / "photos" / "coffee.jpg"
    script = folder / "peer.py"
    script.write_text(PEER)
    ours = [f"{venv}/bin/saliency-r1", "predict", str(photo), "--out", str(folder / "out"), "--fast"]
    theirs = [f"{venv}/bin/python", str(script), str(peer.resolve()), str(photo), str(folder / "mask.png")]
    pairs = [(run(ours), run(theirs)) for _ in range(runs)]
    own, other = (median(pair[side][0] for pair in pairs) for side in (0, 1))
    return [
        ("shell prompt to first mask, `predict --fast` on one photo", f"{own:.2f} s"),
        (f"the same of a script with {peer.name}", f"{other:.2f} s ({own / other:.2f} times)"),
        ("peak memory of that `predict`", f"{max(pair[0][1] for pair in pairs):.2f} GiB"),
        ("peak memory of that script", f"{max(pair[1][1] for pair in pairs):.2f} GiB"),
    ]


def seconds_each(photos: Sequence[Path]) -> list[tuple[str, str]]:
    """Rows of a photo in a process that goes on, by both runtimes in turn."""
    from saliency_r1 import SaliencyPipeline

    pipes = {name: SaliencyPipeline.from_pretrained(device="cpu", runtime=name) for name in ("onnx", "torch")}
    rows = []
    for title, reasoning in (("with reasoning", True), ("`--fast`", False)):
        spent: dict[str, list[float]] = {name: [] for name in pipes}
        for number, photo in enumerate([photos[0], *photos]):
            for name, pipe in pipes.items():
                start = perf_counter()
                pipe(photo, reasoning=reasoning)
                if number:  # not the first call's costs
                    spent[name].append(perf_counter() - start)
        onnx, torch = median(spent["onnx"]), median(spent["torch"])
        rows.append((f"a photo, {title}: onnxruntime, torch", f"{onnx:.3f} s, {torch:.3f} s"))
        rows.append((f"the same, onnxruntime by torch, {title}", f"{onnx / torch:.2f}"))
    return rows


def numbers(data: Path, count: int, folder: Path) -> list[tuple[str, str]]:
    """Rows of the metrics' largest differences between the runtimes."""
    from saliency_r1.data.duts import load_duts, split

    pairs = folder / "pairs"
    for place in ("images", "masks"):
        (pairs / place).mkdir(parents=True)
    for sample in split(load_duts(data))[1][:count]:
        (pairs / "images" / sample.image.name).symlink_to(sample.image.resolve())
        if sample.mask is not None:
            (pairs / "masks" / sample.mask.name).symlink_to(sample.mask.resolve())
    scenes = folder / "scenes"
    command = [sys.executable, "-m", "saliency_r1"]
    made = [*command, "data", "scenes", "--data", str(data), "--split", "validation", "--seed", "5"]
    there = os.environ.get("PYTHONPATH", "")
    run(
        [*made, "--count", str(count), "--groups", str(max(1, count // 4)), "--out", str(scenes)],
        PYTHONPATH=there,
    )
    rows = []
    for task, source in (("sod", pairs), ("sis", scenes), ("cosod", scenes / "groups")):
        found = []
        for name in ("onnx", "torch"):
            out = folder / f"{task}-{name}"
            asked = ["--model", "nano", "--runtime", name, "--device", "cpu", "--out", str(out)]
            run([*command, "evaluate", task, "--data", str(source), *asked], PYTHONPATH=there)
            found.append(json.loads((out / "summary.json").read_text())["metrics"])
        apart = {metric: abs(found[0][metric] - found[1][metric]) for metric in found[0]}
        most = max(apart, key=lambda metric: apart[metric])
        shown = ", ".join(f"{metric} {value:.4f}" for metric, value in list(found[0].items())[:3])
        rows.append((f"{task}, {len(apart)} metrics: largest difference", f"{apart[most]:.5f} ({most})"))
        rows.append((f"{task} by onnxruntime", shown))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="a network in the ONNX format, u2netp.onnx")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds DUTS-TR")
    parser.add_argument("--photos", type=int, default=100, help="photos of each task (default 100)")
    parser.add_argument("--runs", type=int, default=7, help="runs of each command (default 7)")
    parser.add_argument("--seconds", type=int, default=60, help="of the server's load (default 60)")
    parser.add_argument("--batch-photos", type=int, default=1000, help="default 1000")
    parser.add_argument("--skip-install", type=Path, metavar="VENV", help="use this environment instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| what | measured |\n|---|---|")

        def show(rows: Sequence[tuple[str, str]]) -> None:
            for what, measured in rows:
                print(f"| {what} | {measured} |", flush=True)

        venv = options.skip_install
        if venv is None:
            installed(folder)
            seconds, venv = installed(folder)
            show([("first command of the README, warm package cache", f"{seconds:.0f} s")])
            show([("size of its environment", f"{megabytes(venv):.0f} MB")])
        show(first_masks(venv.resolve(), options.peer, folder, options.runs))
        show(numbers(options.data, options.photos, folder))
        show(seconds_each(sorted((folder / "pairs" / "images").iterdir())))
        print(flush=True)
        here = Path(__file__).parent
        for script, *arguments in (
            ("serve_load.py", "--seconds", options.seconds),
            ("batch.py", "--photos", options.batch_photos, "--memory-photos", 0),
        ):
            subprocess.run([sys.executable, str(here / script), *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
