"""`saliency-r1 predict`: find what stands out in photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.options import (
    FastOption,
    GroupImagesOption,
    ModelFlags,
    PolicyFlags,
    TruncatedOption,
    spread,
)
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.policy.given import GivenPhrase

app = typer.Typer(add_completion=False)


@app.command()
@spread
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="PHOTOS...", help="Files, folders (searched recursively) and globs."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. Default: out/; with --json no files are written."),
    ] = None,
    task: Annotated[
        Task,
        typer.Option(help="sod: what stands out. sis: each object on its own. cosod: what all photos share."),
    ] = Task.SOD,
    find: Annotated[
        str | None,
        typer.Option(
            metavar="PHRASE",
            help="Find this instead, such as 'the cat on the left'. Only the segmenter is asked.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="KINDS", help="Write only these of mask,overlay,cutout,json."),
    ] = None,
    fast: FastOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line for each photo and nothing else, for pipes.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip photos whose files are in the folder already.")
    ] = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    accept_truncated: TruncatedOption = False,
    models: ModelFlags,
    asked: PolicyFlags,
) -> None:
    """Find what stands out in photos, say why, and write mask, overlay, cut-out and JSON.

    With --task cosod all photos are one group, and group_sheet.jpg shows them together. Files of an earlier
    run with the same names are replaced.
    """
    from saliency_r1.cli.reporting import chosen_files, load_aloud, run
    from saliency_r1.contact_sheet import GroupSheet
    from saliency_r1.pictures.encoding import save_jpeg
    from saliency_r1.pictures.finding import find_images

    kinds = chosen_files(only)
    named = _given(find, task, models.policy)
    if out is None and not as_json:
        out = Path("out")
    if skip_existing:
        _check_skipping(task, out)
    sheet = GroupSheet() if task.spec.several_images and out is not None else None
    failed = run(
        find_images(inputs, out=out),
        lambda: load_aloud(models, asked, named=named, quiet=as_json),
        task=task,
        reasoning=not fast,
        out=out,
        as_json=as_json,
        group_images=group_images,
        accept_truncated=accept_truncated,
        only=kinds,
        skip_existing=skip_existing,
        on_result=sheet.add if sheet is not None else None,
    )
    if out is not None and sheet:
        path = save_jpeg(sheet.draw(), out / "group_sheet.jpg")
        if not as_json:
            print(f"The group sheet is {path}")
    raise typer.Exit(1 if failed else 0)


def _check_skipping(task: Task, out: Path | None) -> None:
    if out is None:
        raise SaliencyError("--skip-existing with --json needs a folder to look in: give --out")
    if task.spec.several_images:
        raise SaliencyError(f"--skip-existing is not for --task {task}: all photos are one group")


def _given(phrase: str | None, task: Task, policy: str | None) -> GivenPhrase | None:
    """Return the policy that names the phrase, None without a phrase.

    Raises:
        SaliencyError: if the phrase cannot be used, or another option contradicts it.
    """
    if phrase is None:
        return None
    from saliency_r1.policy.given import GivenPhrase

    if task != Task.SOD:
        raise SaliencyError(f"--find goes with --task sod, not with --task {task}")
    if policy is not None:
        raise SaliencyError("--find asks the segmenter alone: leave --policy out")
    return GivenPhrase(phrase)
