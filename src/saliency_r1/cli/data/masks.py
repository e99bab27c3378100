"""`saliency-r1 data masks`: write soft masks of photos with a teacher network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.data.teacher.setting import RECORD, Scaling, Stretch, TeacherSetting

_NETWORK = "Network (defaults: U²-Net)"
_DEFAULT = TeacherSetting()


InputsArgument = Annotated[
    list[str], typer.Argument(metavar="PHOTOS...", help="Files, folders (searched recursively), globs.")
]
TeacherOption = Annotated[
    Path, typer.Option(metavar="FILE.onnx", help="A network for salient object detection in the ONNX format.")
]
OutOption = Annotated[Path, typer.Option(help=f"Folder for the masks and {RECORD}.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue with the photos that have no mask in the folder yet.")
]
SizeOption = Annotated[
    int, typer.Option(min=1, help="Side of the network's square input, pixels.", rich_help_panel=_NETWORK)
]
MeanOption = Annotated[
    tuple[float, float, float],
    typer.Option(help="Subtracted from red, green, blue after scaling.", rich_help_panel=_NETWORK),
]
StdOption = Annotated[
    tuple[float, float, float],
    typer.Option(help="Divisors of red, green, blue after that.", rich_help_panel=_NETWORK),
]
ScalingOption = Annotated[
    Scaling,
    typer.Option(
        help="First divide a photo's values by the largest one, or by 255.", rich_help_panel=_NETWORK
    ),
]
OutputOption = Annotated[
    int, typer.Option(min=0, help="Index of the output that is the mask.", rich_help_panel=_NETWORK)
]
StretchOption = Annotated[
    Stretch,
    typer.Option(
        help="Stretch the output to 0 to 1, treat it as logits, or keep it.", rich_help_panel=_NETWORK
    ),
]


def masks(
    inputs: InputsArgument,
    teacher: TeacherOption,
    out: OutOption,
    resume: ResumeOption = False,
    size: SizeOption = _DEFAULT.size,
    mean: MeanOption = _DEFAULT.mean,
    std: StdOption = _DEFAULT.std,
    scaling: ScalingOption = _DEFAULT.scaling,
    output: OutputOption = _DEFAULT.output,
    stretch: StretchOption = _DEFAULT.stretch,
) -> None:
    """Write a soft mask for each photo with a teacher network: an 8-bit PNG of the photo's size.

    The masks keep the sub-folders. teacher.json records the network's SHA-256 and these settings.
    """
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from saliency_r1.data.teacher.network import Teacher, write_masks
    from saliency_r1.errors import ImageError
    from saliency_r1.pictures.finding import FoundImage, find_images

    network = Teacher(teacher, TeacherSetting(size, mean, std, scaling, output, stretch))
    found = find_images(inputs, out=out)
    photos = [item for item in found if isinstance(item, FoundImage)]
    failed = 0

    def count_error(error: ImageError) -> None:
        nonlocal failed
        failed += 1
        print(f"saliency-r1: {error}", file=sys.stderr)

    def on_done(_: FoundImage, error: ImageError | None) -> None:
        if error is not None:
            count_error(error)
        bar.advance(line)

    for item in found:
        if isinstance(item, ImageError):
            count_error(item)
    written = kept = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("masks", total=len(photos))
        if photos:
            written, kept = write_masks(photos, network, out, resume=resume, on_done=on_done)
    before = f", {kept} existed already" if kept else ""
    print(f"{out}: {written} masks written{before}" + (f", {failed} failed" if failed else ""))
    raise typer.Exit(1 if failed else 0)
