"""`saliency-r1 predict`: what stands out in photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.policy.options import TIMEOUT_SECONDS, PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

app = typer.Typer()

_POLICY = "Large policies"

# For the options that predict and demo share.
PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|HUB|openai:URL#MODEL",
        help="The model that writes: an image-text-to-text model, or one behind an OpenAI-compatible "
        "endpoint; default the embedded nano policy.",
    ),
]
SegmenterOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:WEIGHTS]|FOLDER",
        help="The model that finds, one of `saliency-r1 models`; default the embedded nano segmenter.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
GroupImagesOption = Annotated[
    int, typer.Option(min=2, help="cosod: how many photos the policy sees at a time; over more they vote.")
]
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
        Task,
        typer.Option(
            help="One mask of what stands out, one an instance, or, of all photos, what they share."
        ),
    ] = Task.SOD,
    fast: FastOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line a photo and nothing else, for pipes.")
    ] = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    accept_truncated: Annotated[
        bool,
        typer.Option("--accept-truncated", help="Read files that are cut short as far as they reach."),
    ] = False,
    policy: PolicyOption = None,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the policy's weights: auto, float32, bfloat16, float16.", rich_help_panel=_POLICY
        ),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(help="Spread the policy over GPUs: auto. Needs accelerate.", rich_help_panel=_POLICY),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=_POLICY)
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Pixels of a photo that the policy looks at; default 1003520.", rich_help_panel=_POLICY
        ),
    ] = None,
    prompting: Annotated[
        Prompting,
        typer.Option(
            help="zero-shot explains the format; auto does so for models that were not fine-tuned.",
            rich_help_panel=_POLICY,
        ),
    ] = Prompting.AUTO,
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds for one question to an endpoint, all tries together.", rich_help_panel=_POLICY
        ),
    ] = TIMEOUT_SECONDS,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of a response at most; default 192, or 512 where the format is explained.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    structured: Annotated[
        bool,
        typer.Option(
            "--structured",
            help="Have an endpoint hold its answers to the tags (vLLM, SGLang).",
            rich_help_panel=_POLICY,
        ),
    ] = False,
) -> None:
    """Find what stands out in photos: print why and what, write mask, overlay, cut-out and JSON.

    With --task cosod all photos are one group, and group_sheet.jpg shows them together.
    """
    from saliency_r1.cli.reporting import load_aloud, run
    from saliency_r1.contact_sheet import GroupSheet
    from saliency_r1.pictures.finding import find_images
    from saliency_r1.result import save_jpeg

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
        on_result=sheet.add if sheet is not None else None,
    )
    if out is not None and sheet:
        path = save_jpeg(sheet.draw(), out / "group_sheet.jpg")
        if not as_json:
            print(f"The group sheet is {path}")
    raise typer.Exit(1 if failed else 0)
