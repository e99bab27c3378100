"""`saliency-r1 demo`: do each task on photos that are already on the machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.options import FastOption, ModelFlags, spread

if TYPE_CHECKING:
    from saliency_r1.pictures.finding import FoundImage
    from saliency_r1.result import SaliencyResult

app = typer.Typer()

# These sample photos are part of the scikit-image package; it would download others.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
INSTANCE_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png")
# Two views of one motorcycle. Each row: file, box as shares of width and height, whether to mirror it.
GROUP = (
    ("motorcycle_left.png", (0.0, 0.0, 1.0, 1.0), False),
    ("motorcycle_right.png", (0.06, 0.1, 0.98, 1.0), True),
    ("motorcycle_left.png", (0.05, 0.15, 0.8, 1.0), False),
    ("motorcycle_right.png", (0.3, 0.1, 1.0, 0.95), True),
)


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
    """Do all three tasks on sample photos of scikit-image and draw a contact sheet."""
    from saliency_r1.cli.reporting import load_aloud, run
    from saliency_r1.contact_sheet import GroupSheet, contact_sheet, sections
    from saliency_r1.pictures.encoding import save_jpeg
    from saliency_r1.pictures.finding import FoundImage
    from saliency_r1.tasks import Task

    folder = Path(str(files("skimage.data")))
    single = [FoundImage(folder / name, Path(name).stem) for name in PHOTOS]
    several = [FoundImage(folder / name, f"sis/{Path(name).stem}") for name in INSTANCE_PHOTOS]
    whole: list[SaliencyResult] = []
    instances: list[SaliencyResult] = []
    group = GroupSheet()
    pipe = load_aloud(models)
    failed = 0
    for task, photos, taken_by in (
        (Task.SOD, single, whole.append),
        (Task.SIS, several, instances.append),
        (Task.COSOD, _write_group(folder, out / "cosod"), group.add),
    ):
        failed += run(photos, lambda: pipe, task=task, reasoning=not fast, out=out, on_result=taken_by)
    sheets = [(Task.SOD, contact_sheet(whole))] if whole else []
    sheets += [(Task.SIS, contact_sheet(instances))] if instances else []
    sheets += [(Task.COSOD, group.draw())] if group else []
    if sheets:
        titled = [(f"{task.spec.title} ({task})", sheet) for task, sheet in sheets]
        print(f"The contact sheet is {save_jpeg(sections(titled), out / 'demo.jpg')}")
    raise typer.Exit(1 if failed else 0)


def _write_group(folder: Path, out: Path) -> list[FoundImage]:
    """Cut the group's photos out of the photos in `folder` and write them."""
    from PIL import ImageOps

    from saliency_r1.images import load_image
    from saliency_r1.pictures.encoding import save_jpeg
    from saliency_r1.pictures.finding import FoundImage

    found = []
    for number, (name, box, mirrored) in enumerate(GROUP, start=1):
        photo = load_image(folder / name)
        left, top, right, bottom = box
        width, height = photo.size
        part = photo.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
        path = out / f"motorcycle-{number}.jpg"
        save_jpeg(ImageOps.mirror(part) if mirrored else part, path)
        found.append(FoundImage(path, f"cosod/motorcycle-{number}"))
    return found
