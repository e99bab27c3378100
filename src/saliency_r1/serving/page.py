"""The web page: static files that ask the HTTP API, and the photos of its examples."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from PIL import Image

from saliency_r1.photos import FOLDER, GROUP, SINGLE
from saliency_r1.serving.gate import PAGE
from saliency_r1.serving.problems import Problem

SITE = Path(__file__).parent / "site"
"""The page's own files."""

EXAMPLES = tuple(sorted({*SINGLE, *GROUP}))
"""Names of the photos of its examples."""

_THUMBNAIL_SIDE = 132
_FRESH = {"Cache-Control": "no-cache"}  # after an update no old file is used


def add_page(app: FastAPI) -> None:
    """Put the page into the app of the API: `/`, and its files below `PAGE`.

    The page keeps photos and results in the browser. What it asks goes through the API, with its queue and
    limits.
    """

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(SITE / "index.html", headers=_FRESH)

    @app.get(f"{PAGE}/examples/{{name}}", include_in_schema=False)
    async def example(name: str) -> FileResponse:
        return FileResponse(_example(name))

    @app.get(f"{PAGE}/thumbnails/{{name}}", include_in_schema=False)
    def thumbnail(name: str) -> Response:
        buffer = BytesIO()
        with Image.open(_example(name)) as photo:
            photo.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
            photo.convert("RGB").save(buffer, "JPEG")
        return Response(buffer.getvalue(), media_type="image/jpeg")

    own = {path.name: path for path in SITE.iterdir() if path.is_file()}

    @app.get(f"{PAGE}/{{name}}", include_in_schema=False)
    async def file(name: str) -> FileResponse:
        if name not in own:
            raise Problem(404, f"the page has no file {name}")
        return FileResponse(own[name], headers=_FRESH)

    @app.get("/favicon.ico", include_in_schema=False, status_code=204)
    async def no_icon() -> None:
        """Browsers ask for an icon; a missing one is an error on their consoles."""


def _example(name: str) -> Path:
    if name not in EXAMPLES:
        raise Problem(404, f"the page has no example {name}")
    return FOLDER / name
