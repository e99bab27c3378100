"""Running the pipeline over photos and saying what came out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from saliency_r1.cli.models import load_pipeline
from saliency_r1.errors import ImageError
from saliency_r1.images import FoundImage

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.result import SaliencyResult
    from saliency_r1.tasks import Task


def run(
    inputs: Sequence[FoundImage | ImageError],
    *,
    task: Task,
    reasoning: bool,
    out: Path | None,
    as_json: bool,
    policy: str | None,
    segmenter: str | None,
    device: str,
    on_result: Callable[[SaliencyResult], None] | None = None,
) -> int:
    """Do the photos, print and write each one's result, and return how many failed.

    On stdout come the results, as text or as JSON lines; on stderr errors and, unless `as_json`, the device,
    the progress bar of a terminal and a summary.
    """
    start = time.perf_counter()
    results = Console(highlight=False, markup=False)
    remarks = Console(stderr=True, highlight=False, markup=False, quiet=as_json)
    photos = [item for item in inputs if isinstance(item, FoundImage)]
    failed = len(inputs) - len(photos)
    for item in inputs:
        if isinstance(item, ImageError):
            print(f"saliency-r1: {item}", file=sys.stderr)
    if not photos:
        return failed
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)

    pipe = load_pipeline(policy, segmenter, device)
    remarks.print(_device_line(pipe), style="dim")

    def on_error(source: object, error: ImageError) -> None:
        nonlocal failed
        failed += 1
        print(f"saliency-r1: {error}", file=sys.stderr)
        bar.advance(progress)

    # A bar and results on one terminal must share one console, or they overwrite each other.
    shown_on = results if results.is_terminal and not as_json else Console(stderr=True)
    hidden = len(photos) < 2 or not shown_on.is_terminal or (as_json and results.is_terminal)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown_on, transient=True, disable=hidden) as bar:
        progress = bar.add_task("photos", total=len(photos))
        for result in pipe.stream(photos, task, reasoning=reasoning, on_error=on_error):
            if out is not None:
                result.save(out)
            if as_json:
                print(result.to_json(), flush=True)
            else:
                results.print(_described(result), soft_wrap=not results.is_terminal)
            if on_result is not None:
                on_result(result)
            bar.advance(progress)
    summary = _summary(len(inputs) - failed, failed, time.perf_counter() - start, out)
    remarks.print(summary, style="dim", soft_wrap=True)
    return failed


def _device_line(pipe: SaliencyPipeline) -> str:
    """Which models run where, in which numbers."""
    import torch

    dtype = getattr(getattr(pipe.policy, "model", None), "dtype", None)
    numbers = f" ({str(dtype).removeprefix('torch.')})" if dtype is not None else ""
    threads = f", {torch.get_num_threads()} threads" if pipe.device == "cpu" else ""
    return f"{pipe.name} on {pipe.device}{numbers}{threads}"


def _described(result: SaliencyResult) -> Text:
    """A result in a few lines for people."""
    text = Text()
    text.append(f"{result.source or result.name}\n", style="bold")
    if result.reasoning:
        text.append(f"  {result.reasoning}\n")
    for expression in result.expressions:
        text.append(f"  → {expression}\n", style="green")
    if not result.expressions:
        text.append("  → nothing stands out\n", style="yellow")
    sure = "unknown" if result.confidence is None else f"{result.confidence:.2f}"
    seconds = result.seconds
    text.append(
        f"  confidence {sure}, {seconds['total']:.2f} s "
        f"(policy {seconds['policy']:.2f}, segmenter {seconds['segmenter']:.2f})\n"
    )
    return text


def _summary(done: int, failed: int, seconds: float, out: Path | None) -> str:
    photos = f"{done} photo{'' if done == 1 else 's'} done"
    failures = f", {failed} failed" if failed else ""
    where = f"; masks, overlays, cut-outs and JSON are in {out}/" if out is not None else ""
    return f"{photos}{failures} in {seconds:.1f} s{where}"
