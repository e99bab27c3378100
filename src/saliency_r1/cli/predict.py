"""`saliency-r1 predict`: what stands out in photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.tasks import Task

app = typer.Typer()

# For the options that predict and demo share.
PolicyOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|HUB", help="The model that writes; default the embedded nano policy."),
]
SegmenterOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="The model that finds; default the embedded nano segmenter."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
FastOption = Annotated[bool, typer.Option("--fast", help="The answer alone, without reasoning.")]


@app.command()
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PHOTOS...", help="Files, folders (with all in them) and globs.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where mask, overlay, cut-out and JSON go; default out/, with --json nowhere."),
    ] = None,
    task: Annotated[
        Task, typer.Option(help="One mask of what stands out, one an instance, or what all photos share.")
    ] = Task.SOD,
    fast: FastOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line a photo and nothing else, for pipes.")
    ] = False,
    policy: PolicyOption = None,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Find what stands out in photos: print why and what, write mask, overlay, cut-out and JSON."""
    from saliency_r1.cli.reporting import run
    from saliency_r1.images import find_images

    if out is None and not as_json:
        out = Path("out")
    failed = run(
        find_images(inputs),
        task=task,
        reasoning=not fast,
        out=out,
        as_json=as_json,
        policy=policy,
        segmenter=segmenter,
        device=device,
    )
    raise typer.Exit(1 if failed else 0)
