"""Draw the pictures of docs/tasks.md, by the embedded model on the sample photos.

python docs/task_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from saliency_r1 import SaliencyPipeline
from saliency_r1.contact_sheet import GroupSheet, contact_sheet
from saliency_r1.files import open_atomic
from saliency_r1.photos import FOLDER, GROUP

IMAGES = Path(__file__).parent / "images"
WIDTH = 960


def main() -> None:
    """Draw one picture a task."""
    pipe = SaliencyPipeline.from_pretrained()
    sod = [pipe(FOLDER / name, task="sod") for name in ("chelsea.jpg", "coffee.jpg")]
    sis = [pipe(FOLDER / name, task="sis") for name in ("astronaut.jpg", "coffee.jpg")]
    group = GroupSheet()
    for result in pipe([FOLDER / name for name in GROUP[:2]], task="cosod"):
        group.add(result)
    for name, sheet in (("sod", contact_sheet(sod)), ("sis", contact_sheet(sis)), ("cosod", group.draw())):
        small = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
        with open_atomic(IMAGES / f"task-{name}.jpg") as file:
            small.save(file, format="JPEG", quality=80)


if __name__ == "__main__":
    main()
