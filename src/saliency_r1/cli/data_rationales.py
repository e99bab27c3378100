"""`saliency-r1 data rationales`: reasoning worded by a writer model that sees the true mask."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.policy.options import TIMEOUT_SECONDS

_COST = "Cost"


class Split(StrEnum):
    """Of DUTS-TR."""

    TRAIN = "train"
    VALIDATION = "validation"


def rationales(
    data: Annotated[Path, typer.Option(help="The DUTS folder, or one of photos and masks.")],
    writer: Annotated[
        str,
        typer.Option(metavar="openai:URL#MODEL", help="The model that writes; it must take images."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of SPLIT.jsonl and SPLIT-counts.json, for `train sft`.")
    ] = Path("runs/rationales"),
    split: Annotated[Split, typer.Option(help="The photos to write about.")] = Split.TRAIN,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Photos, spread over the split, for a try.")
    ] = None,
    variants: Annotated[int, typer.Option(min=1, help="Rationales for each photo; each is paid.")] = 1,
    mirror: Annotated[
        bool, typer.Option(help="Ask about each photo mirrored too, which costs twice.")
    ] = False,
    fast_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share that also gives an example without reasoning.")
    ] = 0.25,
    minimum_iou: Annotated[
        float, typer.Option(min=0, max=1, help="The segmenter must find the true mask again this well.")
    ] = 0.7,
    minimum_faithful: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the checkable statements that must hold.")
    ] = 0.8,
    tries: Annotated[int, typer.Option(min=1, help="Answers for each rationale at most.")] = 3,
    temperature: Annotated[float, typer.Option(min=0, help="Of the writer's sampling.")] = 0.7,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Of an answer; more for a writer that thinks on its own before it.")
    ] = 512,
    max_pixels: Annotated[int | None, typer.Option(help="Of a photo at most; default 1003520.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one question with its retries.")] = (
        TIMEOUT_SECONDS
    ),
    concurrent: Annotated[int, typer.Option(min=1, help="Photos under way at a time.")] = 8,
    cache: Annotated[
        Path | None, typer.Option(help="Where answers are kept; default OUT/answers.", rich_help_panel=_COST)
    ] = None,
    price_in: Annotated[
        float, typer.Option(min=0, help="Of a million prompt tokens.", rich_help_panel=_COST)
    ] = 0.0,
    price_out: Annotated[
        float, typer.Option(min=0, help="Of a million answered tokens.", rich_help_panel=_COST)
    ] = 0.0,
    budget: Annotated[
        float | None,
        typer.Option(help="Stop asking when this call has cost that much.", rich_help_panel=_COST),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:WEIGHTS]|FOLDER", help="The frozen segmenter; the embedded one if not given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
    device: Annotated[str, typer.Option(help="Of the segmenter: auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Let a strong model word the measured cues while it looks at the photo with the true mask drawn on it.

    What it writes is checked: form, length, whether its statements hold for the mask, whether the expression
    leads the segmenter back to the mask. Answers are kept, so the same call after a kill, a failure or a
    spent budget goes on and pays nothing twice.
    """
    import json

    import torch
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.layouts import load_splits
    from saliency_r1.device import choose_device
    from saliency_r1.errors import SaliencyError
    from saliency_r1.files import write_bytes_atomic
    from saliency_r1.language.naming import NameBook
    from saliency_r1.policy.endpoints.endpoint import Endpoint
    from saliency_r1.policy.options import is_endpoint
    from saliency_r1.segmenters.load_segmenter import load_segmenter
    from saliency_r1.tasks import Task
    from saliency_r1.writing.sft_set import write_set
    from saliency_r1.writing.writer_jobs import WriterSetting, writer_header, writer_jobs
    from saliency_r1.writing.writer_model import Prices, WriterModel

    if not is_endpoint(writer):
        raise SaliencyError(f"{writer}: is no endpoint; expected openai:http://HOST:PORT/v1#MODEL")
    setting = WriterSetting(variants, mirror, fast_share, minimum_iou, minimum_faithful, tries, seed)
    model = WriterModel(
        Endpoint.from_address(writer, timeout=timeout, max_pixels=max_pixels),
        cache or out / "answers",
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        prices=Prices(price_in, price_out),
        budget=budget,
    )
    train, validation = load_splits(data)
    samples = validation if split is Split.VALIDATION else train
    if not samples:
        raise SaliencyError(f"{data}: the {split.value} split holds no photo; see --split")
    samples = samples[:: max(1, len(samples) // (limit or len(samples)))][:limit]
    frozen = load_segmenter(segmenter, device)
    remarks = Console(stderr=True, highlight=False, markup=False)
    remarks.print(
        f"The segmenter is {frozen.name}, on {choose_device(device)}; the writer is {model.endpoint.name}."
    )
    names = NameBook.from_samples(train)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // concurrent))
    try:
        written = write_set(
            writer_jobs(samples, model, frozen, data, names, setting),
            out / f"{split.value}.jsonl",
            writer_header(model, frozen, data, setting),
            track=lambda jobs: track(jobs, split.value, console=remarks),
            workers=concurrent,
        )
    finally:
        torch.set_num_threads(threads)
    counts = written[Task.SOD]
    text = json.dumps({"sod": counts.to_dict(), "writer": model.report()}, indent=1)
    write_bytes_atomic(out / f"{split.value}-counts.json", text.encode())
    print(text)
    for why in ("over the budget", "no answer"):
        if photos := counts.outcomes[why]:
            remarks.print(f"{photos} photos are left ({why}): the same call goes on with them.")
    raise typer.Exit(1 if counts.outcomes["no answer"] else 0)
