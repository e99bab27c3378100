"""`saliency-r1 demo`: do each task on photos that are already on the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.options import FastOption, ModelFlags, spread

if TYPE_CHECKING:
    from saliency_r1.result import SaliencyResult

app = typer.Typer(add_completion=False)


@app.command()
@spread
def demo(
    *,
    out: Annotated[
        Path, typer.Option(help="Folder for all files, including the contact sheet demo.jpg.")
    ] = Path("out"),
    fast: FastOption = False,
    models: ModelFlags,
) -> None:
    """Do all three tasks on sample photos and draw a contact sheet."""
    from saliency_r1.cli.reporting import load_aloud, run
    from saliency_r1.contact_sheet import GroupSheet, contact_sheet, sections
    from saliency_r1.photos import FOLDER, GROUP, SINGLE
    from saliency_r1.pictures.encoding import save_jpeg
    from saliency_r1.pictures.finding import FoundImage
    from saliency_r1.tasks import Task

    single = [FoundImage(FOLDER / name, Path(name).stem) for name in SINGLE]
    several = [FoundImage(FOLDER / name, f"sis/{Path(name).stem}") for name in SINGLE[:3]]
    together = [FoundImage(FOLDER / name, f"cosod/{Path(name).stem}") for name in GROUP]
    whole: list[SaliencyResult] = []
    instances: list[SaliencyResult] = []
    group = GroupSheet()
    pipe = load_aloud(models)
    failed = 0
    for task, photos, taken_by in (
        (Task.SOD, single, whole.append),
        (Task.SIS, several, instances.append),
        (Task.COSOD, together, group.add),
    ):
        failed += run(photos, lambda: pipe, task=task, reasoning=not fast, out=out, on_result=taken_by)
    sheets = [(Task.SOD, contact_sheet(whole))] if whole else []
    sheets += [(Task.SIS, contact_sheet(instances))] if instances else []
    sheets += [(Task.COSOD, group.draw())] if group else []
    if sheets:
        titled = [(f"{task.spec.title} ({task})", sheet) for task, sheet in sheets]
        print(f"The contact sheet is {save_jpeg(sections(titled), out / 'demo.jpg')}")
    raise typer.Exit(1 if failed else 0)
