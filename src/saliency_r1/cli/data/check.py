"""`saliency-r1 data check`: check whether a data set is complete, and find its faults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.data.checking import Checked

SHOWN = 10


def check(
    data: Annotated[Path, typer.Argument(metavar="FOLDER", help="The data set, in any known layout.")],
    task: Annotated[
        Task | None, typer.Option(help="The task. Default: from the benchmark's name, or from the layout.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="TRAIN", help="Find photos that are also in this second set or folder."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Number of processes. Default: one for each core, at most 8.")
    ] = None,
) -> None:
    """Compare a data set with what is expected, and print each fault with a fix.

    The exit code is 1 if an evaluation would stop or would not measure the expected set: too few or too many
    photos, unreadable files, sizes that differ, or mostly masks whose object is not in the values above 127.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from saliency_r1.data.checking import check_data
    from saliency_r1.workers import default_workers

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("looking", total=None)
        checked = check_data(
            data,
            task,
            against,
            workers=default_workers() if workers is None else workers,
            progress=lambda done, total: bar.update(line, completed=done, total=total),
        )
    _print(data, checked)
    raise typer.Exit(0 if checked.good else 1)


def _print(data: Path, checked: Checked) -> None:
    from saliency_r1.data.checking import Fault

    known = checked.benchmark if checked.benchmark and checked.benchmark.task is checked.task else None
    groups = f" in {checked.groups} groups" if checked.groups is not None else ""
    print(f"{data}: {checked.photos:,} photos with truth{groups}, {checked.task.spec.title}")
    if known is not None:
        verdict = "as expected" if checked.as_expected else "NOT as expected"
        print(f"  {known.name}: {verdict}, {known.expected}")
        if not checked.as_expected:
            print(f"    fix: get it again from {known.source}")
    for fault in Fault:
        found = [finding for finding in checked.findings if finding.fault is fault]
        if not found:
            continue
        print(f"  {len(found):,} × {fault.value}")
        for finding in found[:SHOWN]:
            print(f"    {finding.name}" + (f": {finding.detail}" if finding.detail else ""))
        if len(found) > SHOWN:
            print(f"    and {len(found) - SHOWN:,} more")
        print(f"    fix: {fault.fix}")
    if known is not None:
        for quirk in known.quirks:
            print(f"  known: {quirk}")
        print(f"  terms: {known.terms}; source: {known.source}")
    if not checked.findings:
        print("  nothing is wrong with its files")
