"""How long a photo takes with the embedded model, and how much memory: prints a Markdown table.

    python benchmarks/latency.py --repeats 30 --device cpu
    python benchmarks/latency.py --repeats 30 --device cpu --policy shared/nano-onnx --runtime onnx

The photo is scikit-image's coffee cup at 400x300. The commands are measured as processes of their own, the
pipeline in this process after loading and three warm-up rounds; times are medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

COMMAND = str(Path(sys.executable).with_name("saliency-r1"))
PEAK_UNITS_PER_MB = 1e6 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Process:
    """What one run of a command took.

    Attributes:
        first_line_seconds: from its start to its first line on stdout.
        seconds: from its start to its end.
        peak_mb: its resident memory at most, in MiB.
    """

    first_line_seconds: float
    seconds: float
    peak_mb: float


def run(command: Sequence[str]) -> Process:
    """Run a command to its end.

    A child's peak memory counts that of the process it was split from, so this process must stay small: torch
    is imported only after the last call.
    """
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            assert process.stderr is not None
            sys.exit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()}")
    return Process(first, perf_counter() - start, usage.ru_maxrss / PEAK_UNITS_PER_MB)


def imports_torch(arguments: Sequence[str]) -> bool:
    """Whether the command line loads torch for these arguments."""
    code = (
        "import sys; from saliency_r1.cli import main; "
        f"main({list(arguments)!r}); sys.exit(10 if 'torch' in sys.modules else 0)"
    )
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 10


def draw_photo(path: Path) -> None:
    """Write the photo, in a process of its own."""
    code = (
        "import sys; from PIL import Image; from skimage import data; "
        "Image.fromarray(data.coffee()).resize((400, 300)).save(sys.argv[1], quality=92)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def commands_rows(photo: Path, out: Path, models: Sequence[str], repeats: int) -> list[tuple[str, str]]:
    """Rows of what is measured from the shell."""
    rows = []
    for option in ("--help", "--version"):
        seconds = median(run([COMMAND, option]).seconds for _ in range(repeats))
        torch = "with torch" if imports_torch([option]) else "without torch"
        rows.append((f"`saliency-r1 {option}`", f"{seconds:.2f} s, {torch}"))
    for options in ([], ["--fast"]):
        predict = [COMMAND, "predict", str(photo), "--out", str(out), *models, *options]
        runs = [run(predict) for _ in range(repeats)]
        name = " ".join(["`predict", *options]) + "`"
        rows.append(
            (
                f"shell prompt to first result, {name} on one photo",
                f"{median(each.first_line_seconds for each in runs):.2f} s",
            )
        )
        rows.append(
            (f"peak resident memory of that {name}", f"{max(each.peak_mb for each in runs) / 1024:.2f} GiB")
        )
    return rows


def pipeline_rows(
    photo: Path, device: str, repeats: int, policy: str | None, runtime: str
) -> list[tuple[str, str]]:
    """Rows of one photo end to end in this process."""
    from saliency_r1 import SaliencyPipeline
    from saliency_r1.runtime import threads

    pipe = SaliencyPipeline.from_pretrained(policy, device=device, runtime=runtime)
    by = type(pipe.policy).__name__
    packages = ("onnxruntime",) if by == "OnnxPolicy" else ("torch", "transformers")
    torch = sys.modules.get("torch")
    rows = [
        ("device, by", f"{pipe.device} ({_chip(pipe.device)}), {by}"),
        ("threads", str(torch.get_num_threads() if torch is not None else threads())),
        (
            f"python, {', '.join(packages)}",
            ", ".join([platform.python_version(), *(version(package) for package in packages)]),
        ),
    ]
    for label, reasoning in (("with reasoning", True), ("`--fast`", False)):
        for _ in range(3):
            result = pipe(photo, reasoning=reasoning)
        whole: list[float] = []
        asked: list[float] = []
        found: list[float] = []
        for _ in range(repeats):
            start = perf_counter()
            result = pipe(photo, reasoning=reasoning)
            whole.append(perf_counter() - start)
            asked.append(result.seconds["policy"])
            found.append(result.seconds["segmenter"])
        rows.append(
            (
                f"one 400x300 photo end to end, {label}",
                f"{median(whole):.3f} s (policy {median(asked):.3f}, segmenter {median(found):.3f}; "
                f"{len(result.text)} characters of response)",
            )
        )
    return rows


def _chip(device: str) -> str:
    torch = sys.modules.get("torch")
    if device.startswith("cuda"):
        return "CUDA" if torch is None else str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="rounds in this process (default 30)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--policy", help="folder; default the embedded policy")
    parser.add_argument("--runtime", default="auto", help="torch, onnx or auto (default auto)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.jpg")
        draw_photo(photo)
        models = ["--device", options.device, "--runtime", options.runtime]
        if options.policy is not None:
            models += ["--policy", options.policy]
        commands = commands_rows(photo, Path(folder, "out"), models, options.runs)
        print("| what | measured |\n|---|---|")
        here = pipeline_rows(photo, options.device, options.repeats, options.policy, options.runtime)
        for what, measured in (*here, *commands):
            print(f"| {what} | {measured} |")


if __name__ == "__main__":
    main()
