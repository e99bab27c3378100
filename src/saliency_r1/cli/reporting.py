"""Run the pipeline over photos and print the results."""

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
from saliency_r1.result import FILES, kinds_on_disk
from saliency_r1.runtime import threads
from saliency_r1.wording import shown_name

if TYPE_CHECKING:
    from saliency_r1.cli.options import ModelFlags
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.policy.base import Policy
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
    skip_existing: bool = False,
    on_result: Callable[[SaliencyResult], None] | None = None,
) -> int:
    """Process the photos, print and write each result, and return how many photos failed.

    Results go to stdout, as text or as JSON lines. Errors go to stderr; unless `as_json`, a summary and the
    progress bar of a terminal do too. The pipeline is loaded only if there is a photo to process. A result
    is drawn and written while the next photo is processed.

    Raises:
        SaliencyError: if a task of groups gets one photo, or models or folder are unusable.
    """
    start = time.perf_counter()
    results = Console(highlight=False, markup=False)
    remarks = Console(stderr=True, highlight=False, markup=False, quiet=as_json)
    photos = [item for item in inputs if isinstance(item, FoundImage)]
    failed = len(inputs) - len(photos)
    for item in inputs:
        if isinstance(item, ImageError):
            print(f"saliency-r1: {item}", file=sys.stderr)
    if task.spec.several_images and len(photos) == 1:
        raise SaliencyError(f"1 photo: {task} finds what several photos share; give two or more, or use sod")
    if skip_existing and out is not None:
        asked = len(photos)
        photos = [item for item in photos if kinds_on_disk(out, item.stem, only) != tuple(only)]
        if len(photos) < asked:
            skipped = asked - len(photos)
            what = "1 photo skipped: its" if skipped == 1 else f"{skipped} photos skipped: their"
            line = f"{what} files are in {out}/"
            remarks.print(line, style="dim", soft_wrap=True)
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
    replaced = unsaved = 0
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
            nonlocal replaced, unsaved
            if out is not None:
                replaced += bool(kinds_on_disk(out, result.name, only))
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
                    unsaved += 1
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
    # The images of a group share one answer, and each result counts its retries.
    asked_again = max(retries, default=0) if task.spec.several_images else sum(retries)
    summary = _summary(len(retries) - unsaved, failed, asked_again, time.perf_counter() - start)
    if out is not None and retries:
        summary += _where(out, only, replaced)
    remarks.print(summary, style="dim", soft_wrap=True)
    return failed


def chosen_files(text: str | None) -> tuple[str, ...]:
    """Return the kinds of files in a comma-separated list, or all kinds without a list.

    Raises:
        SaliencyError: if a kind is unknown.
    """
    if text is None:
        return FILES
    kinds = tuple(part.strip() for part in text.split(","))
    unknown = [kind for kind in kinds if kind not in FILES]
    if unknown:
        raise SaliencyError(f"--only {text}: unknown kind {unknown[0]!r}, expected some of {','.join(FILES)}")
    return kinds


def load_aloud(
    models: ModelFlags,
    asked: PolicyOptions | None = None,
    *,
    named: Policy | None = None,
    quiet: bool = False,
) -> SaliencyPipeline:
    """Load a pipeline and, unless `quiet`, print on stderr which models run where.

    Args:
        models: the models of the command line.
        asked: the policy's options.
        named: a loaded policy that takes the place of the one in `models`.
        quiet: whether to print nothing.
    """
    policy = named or models.policy
    pipe = load_pipeline(policy, models.segmenter, models.device, asked, runtime=models.runtime)
    remarks = Console(stderr=True, highlight=False, markup=False, quiet=quiet)
    remarks.print(_device_line(pipe), style="dim")
    return pipe


def _device_line(pipe: SaliencyPipeline) -> str:
    """Return a line that says which models run where, and their dtype."""
    torch = sys.modules.get("torch")
    count = torch.get_num_threads() if torch is not None else threads()
    dtype = getattr(getattr(pipe.policy, "model", None), "dtype", None)
    numbers = f" ({str(dtype).removeprefix('torch.')})" if dtype is not None else ""
    shared = f", {count} threads" if pipe.device == "cpu" else ""
    return f"{pipe.name} on {pipe.device}{numbers}{shared}"


def _described(result: SaliencyResult) -> Text:
    """Return a result in a few lines for people."""
    text = Text()
    text.append(f"{printable(result.source or result.name)}\n", style="bold")
    if result.reasoning:
        text.append(f"  {result.reasoning}\n")
    if result.task.spec.several_expressions:
        for number, one in enumerate(result.instances, start=1):
            text.append(f"  {number} → {shown_name(one.expression)} ({one.score:.2f})\n", style="green")
    elif any(one.area for one in result.instances):
        for expression in result.expressions:
            text.append(f"  → {shown_name(expression)}\n", style="green")
    if not result.expressions:
        text.append("  → nothing stands out\n", style="yellow")
    elif not any(one.area for one in result.instances):
        text.append(f"  → named but not found: {'; '.join(result.expressions)}\n", style="yellow")
    text.append(f"  {_confidence(result)}, {_seconds(result)}\n")
    return text


def _described_group() -> Callable[[SaliencyResult], Text]:
    """Return what describes a group: first the shared words, once, then a line for each image."""
    said = False

    def described(result: SaliencyResult) -> Text:
        nonlocal said
        text = Text()
        if not said:
            said = True
            text.append(f"{result.reasoning}\n" if result.reasoning else "")
            if result.expressions:
                text.append(f"→ {shown_name(result.expressions[0])}", style="green")
            else:
                text.append("→ nothing that stands out is shared", style="yellow")
            text.append(f"  (policy confidence {_sure(result.policy_confidence)})\n\n")
        text.append(f"{printable(result.source or result.name)}\n", style="bold")
        share = f"{result.binary.mean():.1%} of the photo" if result.instances else "not in this photo"
        text.append(f"  {share}, {_confidence(result)}, {_seconds(result)}")
        return text

    return described


def _confidence(result: SaliencyResult) -> str:
    """Return the confidence under its name: it is the policy's own where no expression has a mask."""
    if result.expressions:
        return f"confidence {_sure(result.confidence)}"
    return f"policy confidence {_sure(result.policy_confidence)}"


def _sure(confidence: float | None) -> str:
    return "unknown" if confidence is None else f"{confidence:.2f}"


def _seconds(result: SaliencyResult) -> str:
    parts = ", ".join(f"{part} {value:.2f}" for part, value in result.seconds.items() if part != "total")
    return f"{result.seconds['total']:.2f} s ({parts})"


_SAID = {"mask": "masks", "overlay": "overlays", "cutout": "cut-outs", "json": "JSON"}


def _summary(done: int, failed: int, asked_again: int, seconds: float) -> str:
    photos = f"{done} photo{'' if done == 1 else 's'} done"
    failures = f", {failed} failed" if failed else ""
    again = f", asked a second time {asked_again}x" if asked_again else ""
    return f"{photos}{failures}{again} in {seconds:.1f} s"


def _where(out: Path, only: Sequence[str], replaced: int) -> str:
    """Return which files are in the folder, and of how many photos earlier files were replaced."""
    *first, last = [_SAID[kind] for kind in FILES if kind in only]
    written = f"{', '.join(first)} and {last}" if first else last
    earlier = f"; files of {replaced} photo{'' if replaced == 1 else 's'} were replaced" if replaced else ""
    return f"; {written} {'is' if written == 'JSON' else 'are'} in {out}/{earlier}"
