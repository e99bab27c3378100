"""Running the pipeline over photos and saying what came out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from saliency_r1.cli.models import load_pipeline
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import ImageError, OutputError, SaliencyError
from saliency_r1.files import make_folder, printable
from saliency_r1.pictures.finding import FoundImage
from saliency_r1.result import FILES

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.policy.options import PolicyOptions
    from saliency_r1.result import SaliencyResult
    from saliency_r1.tasks import Task


def run(
    inputs: Sequence[FoundImage | ImageError],
    load: Callable[[], SaliencyPipeline],
    *,
    task: Task,
    reasoning: bool,
    out: Path | None,
    as_json: bool = False,
    group_images: int = GROUP_IMAGES,
    accept_truncated: bool = False,
    only: Sequence[str] = FILES,
    on_result: Callable[[SaliencyResult], None] | None = None,
) -> int:
    """Do the photos, print and write each one's result, and return how many failed.

    On stdout come the results, as text or as JSON lines; on stderr errors and, unless `as_json`, the progress
    bar of a terminal and a summary. The pipeline is loaded only if there is a photo to do. A result is drawn
    and written while the next photo is looked at.
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
        make_folder(out)

    pipe = load()

    def fail(error: ImageError | OutputError) -> None:
        nonlocal failed
        failed += 1
        print(f"saliency-r1: {error}", file=sys.stderr)

    def on_error(source: object, error: ImageError) -> None:
        fail(error)
        bar.advance(progress)

    # A bar and results on one terminal must share one console, or they overwrite each other.
    shown_on = results if results.is_terminal and not as_json else Console(stderr=True)
    hidden = len(photos) < 2 or not shown_on.is_terminal or (as_json and results.is_terminal)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    described = _described_group() if task.spec.several_images else _described
    retries: list[int] = []
    with Progress(*columns, console=shown_on, transient=True, disable=hidden) as bar:
        progress = bar.add_task("photos", total=len(photos))
        done = pipe.stream(
            photos,
            task,
            reasoning=reasoning,
            group_images=group_images,
            accept_truncated=accept_truncated,
            on_error=on_error,
        )

        def finish(result: SaliencyResult) -> None:
            if out is not None:
                try:
                    result.save(
                        out,
                        mask="mask" in only,
                        overlay="overlay" in only,
                        cutout="cutout" in only,
                        json="json" in only,
                        overwrite=True,
                    )
                except OutputError as error:
                    if error.ends_the_run:
                        raise
                    fail(error)
            if as_json:
                print(result.to_json(), flush=True)
            else:
                results.print(described(result), soft_wrap=not results.is_terminal)
            retries.append(result.retries)
            if on_result is not None:
                on_result(result)
            bar.advance(progress)

        with ThreadPoolExecutor(1) as writer:
            finishing: Future[None] | None = None
            for result in done:
                if finishing is not None:
                    finishing.result()
                finishing = writer.submit(finish, result)
            if finishing is not None:
                finishing.result()
    # The images of a group share one answer, and each tells of its retries.
    asked_again = max(retries, default=0) if task.spec.several_images else sum(retries)
    summary = _summary(len(inputs) - failed, failed, asked_again, time.perf_counter() - start, out, only)
    remarks.print(summary, style="dim", soft_wrap=True)
    return failed


def chosen_files(text: str | None) -> tuple[str, ...]:
    """Return the kinds of files in a list with commas; all without one.

    Raises:
        SaliencyError: if there is no such kind.
    """
    if text is None:
        return FILES
    kinds = tuple(part.strip() for part in text.split(","))
    unknown = [kind for kind in kinds if kind not in FILES]
    if unknown:
        raise SaliencyError(f"--only {text}: unknown kind {unknown[0]!r}, expected some of {','.join(FILES)}")
    return kinds


def load_aloud(
    policy: str | None,
    segmenter: str | None,
    device: str,
    *,
    policy_options: PolicyOptions | None = None,
    quiet: bool = False,
) -> SaliencyPipeline:
    """`load_pipeline`, and unless `quiet` a line on stderr that says which models run where."""
    pipe = load_pipeline(policy, segmenter, device, policy_options)
    remarks = Console(stderr=True, highlight=False, markup=False, quiet=quiet)
    remarks.print(_device_line(pipe), style="dim")
    return pipe


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
    text.append(f"{printable(result.source or result.name)}\n", style="bold")
    if result.reasoning:
        text.append(f"  {result.reasoning}\n")
    if result.task.spec.several_expressions:
        for number, one in enumerate(result.instances, start=1):
            text.append(f"  {number} → {one.expression} ({one.score:.2f})\n", style="green")
    else:
        for expression in result.expressions:
            text.append(f"  → {expression}\n", style="green")
    if not result.expressions:
        text.append("  → nothing stands out\n", style="yellow")
    elif result.task.spec.several_expressions and not result.instances:
        text.append(f"  → named but not found: {'; '.join(result.expressions)}\n", style="yellow")
    text.append(f"  confidence {_sure(result.confidence)}, {_seconds(result)}\n")
    return text


def _described_group() -> Callable[[SaliencyResult], Text]:
    """What describes the images of one group: the words, which all share, once; then a line an image."""
    said = False

    def described(result: SaliencyResult) -> Text:
        nonlocal said
        text = Text()
        if not said:
            said = True
            text.append(f"{result.reasoning}\n" if result.reasoning else "")
            if result.expressions:
                text.append(f"→ {result.expressions[0]}", style="green")
            else:
                text.append("→ nothing that stands out is shared", style="yellow")
            text.append(f"  (confidence {_sure(result.policy_confidence)})\n\n")
        text.append(f"{printable(result.source or result.name)}\n", style="bold")
        share = f"{result.binary.mean():.1%} of the photo" if result.instances else "not in this photo"
        text.append(f"  {share}, confidence {_sure(result.confidence)}, {_seconds(result)}")
        return text

    return described


def _sure(confidence: float | None) -> str:
    return "unknown" if confidence is None else f"{confidence:.2f}"


def _seconds(result: SaliencyResult) -> str:
    parts = ", ".join(f"{part} {value:.2f}" for part, value in result.seconds.items() if part != "total")
    return f"{result.seconds['total']:.2f} s ({parts})"


_SAID = {"mask": "masks", "overlay": "overlays", "cutout": "cut-outs", "json": "JSON"}


def _summary(
    done: int, failed: int, asked_again: int, seconds: float, out: Path | None, only: Sequence[str]
) -> str:
    photos = f"{done} photo{'' if done == 1 else 's'} done"
    failures = f", {failed} failed" if failed else ""
    again = f", asked a second time {asked_again}x" if asked_again else ""
    *first, last = [_SAID[kind] for kind in FILES if kind in only]
    written = f"{', '.join(first)} and {last}" if first else last
    where = (
        f"; {written} {'is' if written == 'JSON' else 'are'} in {out}/" if out is not None and done else ""
    )
    return f"{photos}{failures}{again} in {seconds:.1f} s{where}"
