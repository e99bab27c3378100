"""`saliency-r1 cutout`: cut what stands out of photos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.options import ModelFlags, spread

if TYPE_CHECKING:
    from PIL import Image

    from saliency_r1.errors import ImageError
    from saliency_r1.pictures.finding import FoundImage
    from saliency_r1.result import SaliencyResult

app = typer.Typer(add_completion=False)

STANDARD = "-"


@app.command()
@spread
def cutout(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS... OUTPUT",
            help="Files, folders (searched recursively) or globs, then the file or folder to write. "
            "- is stdin, or stdout.",
        ),
    ],
    *,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="COLOUR|PICTURE",
            help="New background: '#ffffff', white or room.jpg.",
        ),
    ] = None,
    crop: Annotated[bool, typer.Option("--crop", help="Crop the picture to the cut-out.")] = False,
    mask_only: Annotated[
        bool,
        typer.Option("--mask-only", help="Write the alpha channel in 8-bit grey, not the cut-out."),
    ] = False,
    matting: Annotated[
        bool, typer.Option("--matting", help="Refine the alpha channel for hair and fur. Takes longer.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip photos whose output file exists.")
    ] = False,
    models: ModelFlags,
) -> None:
    """Cut what stands out of photos, with soft edges and no colour of the background.

    `cutout dog.jpg dog.png` writes one file. If OUTPUT is a folder, each photo becomes a PNG in it, and
    folders keep their tree. `cutout - -` reads a photo from stdin and writes a PNG to stdout.
    """
    from saliency_r1.cutting import cropped, on_background, read_background
    from saliency_r1.errors import ImageError, OutputError, SaliencyError
    from saliency_r1.files import printable
    from saliency_r1.pictures.encoding import save_picture, write_png

    if mask_only and background is not None:
        raise SaliencyError("--mask-only and --background exclude each other: a mask has no background")
    ground = read_background(background) if background is not None else None
    opaque = mask_only or ground is not None
    plan = _plan(paths, opaque)
    errors = [item for item in plan if isinstance(item, ImageError)]
    photos = [item for item in plan if not isinstance(item, ImageError)]
    failed = 0

    def fail(error: SaliencyError) -> None:
        nonlocal failed
        failed += 1
        print(f"saliency-r1: {error}", file=sys.stderr)

    for error in errors:
        fail(error)
    if skip_existing:
        there = {target for _, target in photos if target is not None and target.exists()}
        photos = [item for item in photos if item[1] not in there]
        if there:
            what = "1 photo skipped: its" if len(there) == 1 else f"{len(there)} photos skipped: their"
            print(f"{what} output exists", file=sys.stderr)

    def finished(result: SaliencyResult) -> Image.Image:
        picture = result.cutout(matting=matting)
        if not result.instances:
            print(f"{printable(result.source or result.name)}: nothing stands out", file=sys.stderr)
        if crop:
            picture = cropped(picture)
        if mask_only:
            return picture.getchannel("A")
        return picture if ground is None else on_background(picture, ground)

    if photos:
        from saliency_r1.cli.models import load_pipeline

        pipe = load_pipeline(models.policy, models.segmenter, models.device, runtime=models.runtime)
        for source, target in photos:
            try:
                picture = finished(pipe(source, reasoning=False))
                if target is not None:
                    save_picture(picture, target)
                else:
                    write_png(picture, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
            except ImageError as error:
                fail(error)
            except OutputError as error:
                if error.ends_the_run:
                    raise
                fail(error)
    raise typer.Exit(1 if failed else 0)


def _plan(paths: Sequence[str], opaque: bool) -> list[tuple[FoundImage | bytes, Path | None] | ImageError]:
    """Return each photo with the file to write (None for stdout), and an error for each that is not found.

    Raises:
        SaliencyError: if the output does not fit the photos.
    """
    from saliency_r1.errors import ImageError, SaliencyError
    from saliency_r1.files import make_folder
    from saliency_r1.pictures.encoding import check_ending
    from saliency_r1.pictures.finding import find_images

    *inputs, output = paths
    if not inputs:
        raise SaliencyError(f"{output}: give the photo and where to write it: cutout dog.jpg dog.png")
    into = output != STANDARD and (output.endswith(("/", "\\")) or Path(output).is_dir())
    target = None if output == STANDARD else Path(output)
    if target is not None and not into:
        check_ending(target, opaque=opaque)
    if STANDARD in inputs:
        if len(inputs) > 1 or into:
            raise SaliencyError("- is one photo from stdin: give no other photo, and a file or - as output")
        return [(sys.stdin.buffer.read(), target)]
    several = len(inputs) > 1 or Path(inputs[0]).is_dir() or any(sign in inputs[0] for sign in "*?[")
    if several and target is None:
        raise SaliencyError("- as output takes one photo; give a folder as output for several")
    if several and not into:
        raise SaliencyError(
            f"{output}: is one file, but there may be several photos; end it with / to name a folder"
        )
    found = find_images(inputs, out=target if into else None)
    if into and any(not isinstance(item, ImageError) for item in found):
        make_folder(output)
    return [
        item if isinstance(item, ImageError) else (item, Path(output, f"{item.stem}.png") if into else target)
        for item in found
    ]
