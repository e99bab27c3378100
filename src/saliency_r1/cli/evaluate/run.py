"""Run an evaluation with a progress bar and printed numbers, for the commands that make runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from saliency_r1.evaluation.runner import Progress, Request
    from saliency_r1.pipeline import SaliencyPipeline


def evaluate_request(request: Request, load_model: Callable[[], SaliencyPipeline], remarks: Console) -> None:
    """Run an evaluation with a bar, and print its numbers.

    Args:
        request: the evaluation's settings.
        load_model: loads the model, if there are no predictions.
        remarks: the console for the bar and for warnings.

    Raises:
        SaliencyError: see `saliency_r1.evaluation.runner.evaluate`; also if a picture cannot be read.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from saliency_r1.errors import ImageError, SaliencyError
    from saliency_r1.evaluation.evaluation import answers_of
    from saliency_r1.evaluation.outputs import TITLES, shown, warnings
    from saliency_r1.evaluation.runner import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=remarks, transient=True, disable=not remarks.is_terminal) as bar:

        def load_and_tell() -> SaliencyPipeline:
            pipe = load_model()
            remarks.print(f"{pipe.name} on {pipe.device}", style="dim")
            return pipe

        try:
            evaluation, facts = evaluate(request, load_and_tell, _told_by(bar))
        except ImageError as error:  # one unreadable picture stops the evaluation, so the exit code is 2
            raise SaliencyError(str(error)) from error
    for note in warnings(evaluation, facts):
        remarks.print(f"{note}.", style="yellow")
    print(f"{facts.method} on {facts.data_name}, {len(evaluation.rows)} photos, {facts.seconds:.1f} s")
    for metric, value in evaluation.metrics.items():
        print(f"  {TITLES[metric]:<16}{shown(value)}")
    if answers := answers_of(evaluation, facts.prices):
        said = f"  {answers['questions']} questions, {answers['second tries']} second tries"
        said += f", {answers['unparsed']} unparsed"
        if answers["cost"] is not None:
            said += f", {answers['prompt tokens']:,} + {answers['completion tokens']:,} tokens"
            said += f", cost {answers['cost']:g}" if any(facts.prices) else ""
        print(said)
    print(f"{request.out}/report.html, summary.json, per_image.csv, row.md, row.tex")


def _told_by(bar: Bar) -> Progress:
    """Show each stage as a line of the bar."""
    stages: dict[str, TaskID] = {}

    def told(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages[stage] = bar.add_task(stage, total=total)
        bar.update(stages[stage], completed=done)

    return told
