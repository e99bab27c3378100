"""`saliency-r1 predict`: what stands out in photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.options import (
    DeviceMapOption,
    DeviceOption,
    DtypeOption,
    FastOption,
    GroupImagesOption,
    MaxNewTokensOption,
    MaxPixelsOption,
    PolicyOption,
    PromptingOption,
    RevisionOption,
    SegmenterOption,
    StructuredOption,
    TimeoutOption,
)
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.policy.options import TIMEOUT_SECONDS, PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

app = typer.Typer()

OutOption = Annotated[
    Path | None,
    typer.Option(help="Where mask, overlay, cut-out and JSON go; default out/, with --json nowhere."),
]
TaskOption = Annotated[
    Task,
    typer.Option(help="One mask of what stands out, one an instance, or, of all photos, what they share."),
]
OnlyOption = Annotated[
    str | None, typer.Option(metavar="KINDS", help="Write only these of mask,overlay,cutout,json.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON line a photo and nothing else, for pipes.")
]
TruncatedOption = Annotated[
    bool, typer.Option("--accept-truncated", help="Read files that are cut short as far as they reach.")
]


@app.command()
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PHOTOS...", help="Files, folders (with all in them) and globs.")
    ],
    out: OutOption = None,
    task: TaskOption = Task.SOD,
    only: OnlyOption = None,
    fast: FastOption = False,
    as_json: JsonOption = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    accept_truncated: TruncatedOption = False,
    policy: PolicyOption = None,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    device_map: DeviceMapOption = None,
    revision: RevisionOption = None,
    max_pixels: MaxPixelsOption = None,
    prompting: PromptingOption = Prompting.AUTO,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    max_new_tokens: MaxNewTokensOption = None,
    structured: StructuredOption = False,
) -> None:
    """Find what stands out in photos: print why and what, write mask, overlay, cut-out and JSON.

    With --task cosod all photos are one group, and group_sheet.jpg shows them together.
    """
    from saliency_r1.cli.reporting import chosen_files, load_aloud, run
    from saliency_r1.contact_sheet import GroupSheet
    from saliency_r1.pictures.encoding import save_jpeg
    from saliency_r1.pictures.finding import find_images

    kinds = chosen_files(only)
    options = PolicyOptions(
        dtype, device_map, revision, max_pixels, prompting, timeout, max_new_tokens, structured
    )
    if out is None and not as_json:
        out = Path("out")
    sheet = GroupSheet() if task.spec.several_images and out is not None else None
    failed = run(
        find_images(inputs, out=out),
        lambda: load_aloud(policy, segmenter, device, policy_options=options, quiet=as_json),
        task=task,
        reasoning=not fast,
        out=out,
        as_json=as_json,
        group_images=group_images,
        accept_truncated=accept_truncated,
        only=kinds,
        on_result=sheet.add if sheet is not None else None,
    )
    if out is not None and sheet:
        path = save_jpeg(sheet.draw(), out / "group_sheet.jpg")
        if not as_json:
            print(f"The group sheet is {path}")
    raise typer.Exit(1 if failed else 0)
