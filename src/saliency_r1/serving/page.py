"""The web page: a tab for each task, mounted in the app of the API, through the same queue and limits."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

# Before gradio is imported, which reads them then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import numpy as np
from fastapi import FastAPI
from PIL import Image

from saliency_r1.errors import ImageError
from saliency_r1.images import check_header
from saliency_r1.overlay import paint_masks, to_grey
from saliency_r1.pictures.encoding import save_jpeg
from saliency_r1.result import SaliencyResult
from saliency_r1.serving.answers import picture_names
from saliency_r1.serving.engine import Engine, Picture, State, Work
from saliency_r1.serving.gate import PAGE
from saliency_r1.serving.problems import Problem
from saliency_r1.serving.settings import ServerSettings
from saliency_r1.tasks import Task

KEPT_SECONDS = 3600
"""How long the files of an answer can be looked at and downloaded."""

_SWEEP_SECONDS = 300
_LONGEST_SIDE = 1280
_ALL = "All"
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONOSPACE_FONTS = ("ui-monospace", "Consolas", "monospace")

# Of scikit-image's sample photos these lie in the package itself.
_EXAMPLES = {
    Task.SOD: (("astronaut.png",), ("chelsea.png",), ("coffee.png",), ("rocket.jpg",)),
    Task.SIS: (("astronaut.png",), ("chelsea.png",), ("coffee.png",)),
    Task.COSOD: (("motorcycle_left.png", "motorcycle_right.png"),),
}
_TABS = {
    Task.SOD: ("One thing", "What stands out in a photo, as one mask."),
    Task.SIS: ("Each thing", "Each instance that stands out in a photo, with a mask of its own."),
    Task.COSOD: ("Shared", "What two or more photos have in common: add them together."),
}
_CSS = """
.gradio-container { width: 100%; max-width: 1100px !important; margin: 0 auto; }
.lead p { font-size: 1.05rem; margin: 0; }
.example img { width: 44px !important; height: 44px !important; object-fit: cover; }
.status p { margin: 0; min-height: 1.5em; font-weight: 600; }
"""
# The picture is a button, to which gradio gives no name for screen readers.
_NAMES = """() => {
  const name = () => document.querySelectorAll('[id$=-view] button:has(img):not([aria-label])').forEach(
    one => one.setAttribute('aria-label', 'The photo with what is found'));
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
}"""


@dataclass(frozen=True)
class _Shown:
    """What the page keeps of a picture: texts, and where its files are."""

    name: str
    reasoning: str
    confidences: tuple[float | None, ...]
    expressions: tuple[str, ...]
    views: tuple[str, ...]
    masks: tuple[str, ...]
    cutout: str
    json: str


def sureness(confidence: float | None) -> str:
    """A confidence, the IoU that the masks are expected to have, in words and as a number."""
    if confidence is None:
        return "unknown"
    words = ((0.9, "very sure"), (0.75, "fairly sure"), (0.5, "not so sure"), (0.0, "a guess"))
    return f"{next(word for least, word in words if confidence >= least)} ({confidence:.2f} of 1)"


def mount_page(app: FastAPI, engine: Engine, settings: ServerSettings) -> FastAPI:
    """Put the page into the app, at `PAGE`.

    Its files, uploads too, are in a temporary folder that goes with the app; each is removed within about an
    hour.

    Args:
        app: of the API.
        engine: answers.
        settings: limits.
    """
    folder = Path(tempfile.mkdtemp(prefix="saliency-r1-page-"))
    app.state.folder = folder
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    answers = folder / "answers"
    outer = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(inner: FastAPI) -> AsyncIterator[Any]:
        sweeping = asyncio.create_task(_sweep(answers))
        try:
            async with outer(inner) as state:
                yield state
        finally:
            sweeping.cancel()
            shutil.rmtree(folder, ignore_errors=True)

    app.router.lifespan_context = lifespan
    blocks = build_page(engine, settings, answers)
    return gr.mount_gradio_app(
        app,
        blocks,
        PAGE,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=settings.limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=_SYSTEM_FONTS, font_mono=_MONOSPACE_FONTS),
        css=_CSS,
        js=_NAMES,
    )


def build_page(engine: Engine, settings: ServerSettings, answers: Path) -> gr.Blocks:
    """The page itself.

    Args:
        engine: answers.
        settings: limits.
        answers: where the files of the answers go.
    """
    with gr.Blocks(
        title="Saliency-R1",
        analytics_enabled=False,
        delete_cache=(_SWEEP_SECONDS, KEPT_SECONDS),
    ) as blocks:
        gr.Markdown(
            "# What stands out?\nAs a mask, and in words. Photos stay on the server, for an hour at most."
        )
        with gr.Tabs():
            for task in Task:
                with gr.Tab(_TABS[task][0], id=task.value):
                    _build_tab(task, engine, settings, answers)
    blocks.queue(max_size=settings.limits.waiting, api_open=False)
    return blocks


def _build_tab(task: Task, engine: Engine, settings: ServerSettings, answers: Path) -> None:
    grouped = task.spec.several_images
    found = gr.State(list[_Shown](), time_to_live=KEPT_SECONDS)
    at = gr.State(0)
    gr.Markdown(_TABS[task][1], elem_classes="lead")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photos = gr.File(
                label="Photos: drop them here, or choose",
                file_count="multiple",
                file_types=["image"],
                height=170,
                elem_id=f"{task}-photos",
            )
            reasoning = gr.Checkbox(True, label="Reason first", info="Slower, and says why.")
            go = gr.Button("Find what they share" if grouped else "Find what stands out", variant="primary")
            gr.Markdown("Examples")
            with gr.Row():
                examples = [
                    gr.Button(
                        ", ".join(_spoken(name) for name in names),
                        icon=str(_photo(names[0])),
                        size="sm",
                        min_width=130,
                        elem_classes="example",
                        elem_id=f"{task}-example-{number}",
                    )
                    for number, names in enumerate(_EXAMPLES[task])
                ]
        with gr.Column(scale=3, min_width=300):
            status = gr.Markdown(
                "Add photos, or choose an example.", elem_classes="status", elem_id=f"{task}-status"
            )
            gallery = gr.Gallery(
                label="Photos: choose one",
                visible=False,
                allow_preview=False,
                columns=4,
                height=150,
                interactive=False,
                elem_id=f"{task}-gallery",
            )
            view = gr.Image(
                label="What is found",
                type="filepath",
                interactive=False,
                buttons=["fullscreen"],
                elem_id=f"{task}-view",
            )
            choice = gr.Radio([], label="Show", visible=False, interactive=True, elem_id=f"{task}-choice")
            confidence = gr.Textbox(label="Confidence", interactive=False, elem_id=f"{task}-confidence")
            why = gr.Textbox(label="Reasoning", interactive=False, lines=3, elem_id=f"{task}-reasoning")
            with gr.Row():
                mask = gr.DownloadButton("Mask", interactive=False, size="sm", elem_id=f"{task}-mask")
                cutout = gr.DownloadButton("Cut-out", interactive=False, size="sm", elem_id=f"{task}-cutout")
                json = gr.DownloadButton("JSON", interactive=False, size="sm", elem_id=f"{task}-json")

    details = [view, choice, confidence, why, mask, cutout, json]

    async def find(paths: list[str] | None, reasons: bool) -> list[Any]:
        start = time.perf_counter()
        try:
            shown = await _find(paths or [], task, reasons, engine, settings, answers)
        except Problem as problem:
            return [[], 0, f"**Not done:** {problem.detail}", gr.Gallery(visible=False), *_nothing()]
        thumbnails = [(one.views[0], one.name) for one in shown]
        pictures = f"{len(shown)} photos" if len(shown) > 1 else "Done"
        said = f"{pictures} in {time.perf_counter() - start:.1f} s"
        return [shown, 0, said, gr.Gallery(thumbnails, visible=len(shown) > 1), *_details(shown[0], 0)]

    def choose_photo(shown: list[_Shown], event: gr.SelectData) -> list[Any]:
        return [event.index, *(_details(shown[event.index], 0) if shown else _nothing())]

    def choose_expression(shown: list[_Shown], index: int, event: gr.SelectData) -> list[Any]:
        if not shown:
            return [None, None, ""]
        one, part = shown[index], event.index
        return [one.views[part], one.masks[part], sureness(one.confidences[part])]

    inputs, outputs = [photos, reasoning], [found, at, status, gallery, *details]
    together: dict[str, Any] = {"concurrency_limit": settings.limits.waiting, "api_visibility": "private"}
    photos.upload(find, inputs, outputs, **together)
    go.click(find, inputs, outputs, **together)
    for button, names in zip(examples, _EXAMPLES[task], strict=True):
        chosen = [str(_photo(name)) for name in names]
        button.click(partial(list, chosen), None, photos, **together).then(find, inputs, outputs, **together)
    gallery.select(choose_photo, found, [at, *details], **together)
    choice.select(choose_expression, [found, at], [view, mask, confidence], **together)


async def _find(
    paths: Sequence[str], task: Task, reasoning: bool, engine: Engine, settings: ServerSettings, answers: Path
) -> list[_Shown]:
    """What is found in these files.

    Raises:
        Problem: as the API has it.
    """
    limits = settings.limits
    if not paths:
        raise Problem(422, "there is no photo yet: add one")
    if len(paths) > limits.images:
        raise Problem(422, f"{len(paths)} photos are more than the limit, {limits.images}")
    names = picture_names([Path(path).name for path in paths])
    for name, path in zip(names, paths, strict=True):
        try:
            with open(path, "rb") as file:
                check_header(file, name, max_pixels=limits.pixels)
        except ImageError as error:
            raise Problem(422, str(error)) from None
        except OSError:
            raise Problem(422, f"{name}: is not here any more, add it again") from None
    deadline = asyncio.get_running_loop().time() + limits.seconds
    while engine.state == State.LOADING and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
    pictures = [Picture(name, Path(path).read_bytes) for name, path in zip(names, paths, strict=True)]
    work = Work(pictures, task, lambda picture, result: _written(picture, result, answers), reasoning)
    with engine.place():
        return await engine.answer(work, deadline)


def _written(picture: Picture, result: SaliencyResult, answers: Path) -> _Shown:
    """Write the files of a result that the page shows and gives."""
    folder = answers / secrets.token_hex(16)
    paths = result.save(folder, picture.name, overlay=False, overwrite=True)
    small = _reduced(result)
    alone = [paint_masks(small.image, [one.mask]) for one in small.instances]
    several = len(alone) > 1
    views = [small.overlay(), *(alone if several else [])]
    masks = [paths["mask"], *(paths[f"mask_{number}"] for number in range(1, len(alone) + 1) if several)]
    return _Shown(
        picture.name,
        result.reasoning,
        (result.confidence, *(one.score for one in result.instances)),
        tuple(one.expression for one in result.instances) or result.expressions,
        tuple(str(save_jpeg(one, folder / f"view-{number}.jpg")) for number, one in enumerate(views)),
        tuple(map(str, masks)),
        str(paths["cutout"]),
        str(paths["json"]),
    )


def _reduced(result: SaliencyResult) -> SaliencyResult:
    """The result at a size for screens."""
    size = max(result.image.size)
    if size <= _LONGEST_SIDE:
        return result
    width, height = (max(1, round(side * _LONGEST_SIDE / size)) for side in result.image.size)

    def shrunk(mask: np.ndarray) -> np.ndarray:
        grey = to_grey(mask).resize((width, height), Image.Resampling.BOX)
        return np.asarray(grey, np.float32) / np.float32(255)

    instances = tuple(replace(one, mask=shrunk(one.mask)) for one in result.instances)
    image = result.image.resize((width, height))
    layer = result.layer.resize((width, height)) if result.layer is not None else None
    return replace(result, image=image, layer=layer, instances=instances)


def _details(shown: _Shown, index: int) -> list[Any]:
    """The values of a tab's details for a picture."""
    numbered = [f"{number}: {text}" for number, text in enumerate(shown.expressions, start=1)]
    several = len(shown.views) > 1
    choices = [_ALL, *numbered] if several else list(shown.expressions) or ["nothing stands out"]
    return [
        shown.views[index],
        gr.Radio(choices, value=choices[0], visible=True, interactive=True),
        sureness(shown.confidences[0]),
        shown.reasoning,
        gr.DownloadButton(value=shown.masks[index], interactive=True),
        gr.DownloadButton(value=shown.cutout, interactive=True),
        gr.DownloadButton(value=shown.json, interactive=True),
    ]


def _nothing() -> list[Any]:
    idle: Callable[[], gr.DownloadButton] = lambda: gr.DownloadButton(value=None, interactive=False)  # noqa: E731
    return [None, gr.Radio([], value=None, visible=False), "", "", idle(), idle(), idle()]


def _spoken(name: str) -> str:
    return Path(name).stem.replace("_", " ")


def _photo(name: str) -> Path:
    return Path(str(files("skimage.data"))) / name


async def _sweep(answers: Path) -> None:
    """Remove the files of answers that are old, again and again."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        await asyncio.to_thread(_remove_old, answers)


def _remove_old(answers: Path) -> None:
    oldest = time.time() - KEPT_SECONDS
    with suppress(OSError):
        for folder in answers.iterdir():
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
