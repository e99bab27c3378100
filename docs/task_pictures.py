"""Draw the pictures of docs/tasks.md, by the embedded model on scikit-image's photos.

python docs/task_pictures.py
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from PIL import Image

from saliency_r1 import SaliencyPipeline
from saliency_r1.contact_sheet import GroupSheet, contact_sheet
from saliency_r1.files import open_atomic

IMAGES = Path(__file__).parent / "images"
WIDTH = 960


def main() -> None:
    """Draw one picture a task."""
    folder = Path(str(files("skimage.data")))
    pipe = SaliencyPipeline.from_pretrained()
    sod = [pipe(folder / name, task="sod") for name in ("chelsea.png", "coffee.png")]
    sis = [pipe(folder / name, task="sis") for name in ("astronaut.png", "coffee.png")]
    group = GroupSheet()
    for result in pipe([folder / f"motorcycle_{side}.png" for side in ("left", "right")], task="cosod"):
        group.add(result)
    for name, sheet in (("sod", contact_sheet(sod)), ("sis", contact_sheet(sis)), ("cosod", group.draw())):
        small = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
        with open_atomic(IMAGES / f"task-{name}.jpg") as file:
            small.save(file, format="JPEG", quality=80)


if __name__ == "__main__":
    main()
