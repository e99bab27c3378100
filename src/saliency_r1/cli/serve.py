"""`saliency-r1 serve`: the web page and the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.cli.options import ModelFlags, TruncatedOption, spread
from saliency_r1.errors import SaliencyError
from saliency_r1.serving.settings import Limits, ServerSettings, token_from_environment

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline

app = typer.Typer(add_completion=False)

_limit = partial(typer.Option, rich_help_panel="Limits")


@dataclass(frozen=True)
class LimitFlags(Limits):
    """`Limits` as options of the command."""

    bytes: Annotated[int, _limit("--max-bytes", min=1000, help="Maximum size of a request, bytes.")] = (
        Limits.bytes
    )
    pixels: Annotated[int, _limit("--max-pixels", min=1, help="Maximum size of a picture, pixels.")] = (
        Limits.pixels
    )
    images: Annotated[int, _limit("--max-images", min=2, help="Maximum number of pictures in a request.")] = (
        Limits.images
    )
    seconds: Annotated[
        float,
        _limit("--max-seconds", min=0.1, help="Maximum time for a request, seconds."),
    ] = Limits.seconds
    waiting: Annotated[
        int,
        _limit("--max-waiting", min=1, help="Requests accepted at a time; others get status 429."),
    ] = Limits.waiting


@app.command()
@spread
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other machines need a token in SALIENCY_R1_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8765,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Serve the page too, or only the API.")
    ] = True,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the web page in your browser.")] = False,
    accept_truncated: TruncatedOption = False,
    models: ModelFlags,
    limits: LimitFlags,
) -> None:
    """Serve a web page and an HTTP API until Ctrl-C.

    Requests that were accepted are answered before the server stops.
    """
    from threading import Thread

    from rich.console import Console

    from saliency_r1.cli.models import load_pipeline, prepare_hub
    from saliency_r1.policy.options import is_endpoint

    if open_browser and not page:
        raise SaliencyError("--open and --no-page exclude each other: without the page nothing can be opened")
    settings = ServerSettings(host, port, token_from_environment(), limits, accept_truncated)
    prepare_hub(models.policy, models.segmenter)
    try:
        from saliency_r1.serving.server import serve as run
        from saliency_r1.serving.server import warm_up
    except ModuleNotFoundError as error:
        raise SaliencyError(f"serve needs {error.name}: pip install 'saliency-r1[serve]'") from error

    console = Console(stderr=True, highlight=False, markup=False)
    what = "page and API" if page else "API"

    def announce(url: str) -> None:
        console.print(f"{what} on {url}", soft_wrap=True)
        if open_browser:
            Thread(target=_open, args=(url,), daemon=True).start()

    def load() -> SaliencyPipeline:
        pipe = load_pipeline(models.policy, models.segmenter, models.device, runtime=models.runtime)
        if not is_endpoint(models.policy):  # a warm-up question would cost time, and perhaps money
            warm_up(pipe)
        return pipe

    run(load, settings, page=page, announce=announce)


def _open(url: str) -> None:
    """Open the page in the user's browser, or say that there is none. A browser in a terminal takes long."""
    import sys
    import webbrowser

    if not webbrowser.open(url):
        print(f"saliency-r1: no browser was found; open {url} yourself", file=sys.stderr)
