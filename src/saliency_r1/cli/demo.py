"""`saliency-r1 demo`: what predict does, on photos that are already on the machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.predict import DeviceOption, FastOption, PolicyOption, SegmenterOption

if TYPE_CHECKING:
    from saliency_r1.result import SaliencyResult

app = typer.Typer()

# Of scikit-image's sample photos these lie in the package itself; others it would download.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Where all files go, the contact sheet demo.jpg among them.")
    ] = Path("out"),
    fast: FastOption = False,
    policy: PolicyOption = None,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Do the same on four photos that scikit-image carries, and draw a contact sheet of them."""
    from saliency_r1.cli.reporting import run
    from saliency_r1.contact_sheet import contact_sheet
    from saliency_r1.files import open_atomic
    from saliency_r1.images import FoundImage
    from saliency_r1.tasks import Task

    folder = Path(str(files("skimage.data")))
    results: list[SaliencyResult] = []
    failed = run(
        [FoundImage(folder / name, Path(name).stem) for name in PHOTOS],
        task=Task.SOD,
        reasoning=not fast,
        out=out,
        as_json=False,
        policy=policy,
        segmenter=segmenter,
        device=device,
        on_result=results.append,
    )
    if results:
        sheet = out / "demo.jpg"
        with open_atomic(sheet) as file:
            contact_sheet(results).save(file, format="JPEG", quality=90)
        print(f"The contact sheet is {sheet}")
    raise typer.Exit(1 if failed else 0)
