"""`saliency-r1 data rationales`: reasoning worded by a writer model that sees the true mask."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.options import FrozenSegmenterOption, SeedOption, Split
from saliency_r1.policy.options import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from saliency_r1.writing.sft_set import SFTCounts

_COST = "Cost"


DataOption = Annotated[Path, typer.Option(help="The DUTS folder, or one of photos and masks.")]
WriterOption = Annotated[
    str,
    typer.Option(metavar="openai:URL#MODEL", help="The model that writes; it must take images."),
]
OutOption = Annotated[
    Path, typer.Option(help="Folder of SPLIT.jsonl and SPLIT-counts.json, for `train sft`.")
]
SplitOption = Annotated[Split, typer.Option(help="The photos to write about.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Photos, spread over the split, for a try.")]
VariantsOption = Annotated[int, typer.Option(min=1, help="Rationales for each photo; each is paid.")]
MirrorOption = Annotated[bool, typer.Option(help="Ask about each photo mirrored too, which costs twice.")]
FastShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share that also gives an example without reasoning.")
]
MinimumIouOption = Annotated[
    float, typer.Option(min=0, max=1, help="The segmenter must find the true mask again this well.")
]
MinimumFaithfulOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the checkable statements that must hold.")
]
TriesOption = Annotated[int, typer.Option(min=1, help="Answers for each rationale at most.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Of the writer's sampling.")]
MaxNewTokensOption = Annotated[
    int, typer.Option(min=1, help="Of an answer; more for a writer that thinks on its own before it.")
]
MaxPixelsOption = Annotated[int | None, typer.Option(help="Of a photo at most; default 1003520.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds for one question with its retries.")]
ConcurrentOption = Annotated[int, typer.Option(min=1, help="Photos under way at a time.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Where answers are kept; default OUT/answers.", rich_help_panel=_COST)
]
PriceInOption = Annotated[
    float, typer.Option(min=0, help="Of a million prompt tokens.", rich_help_panel=_COST)
]
PriceOutOption = Annotated[
    float, typer.Option(min=0, help="Of a million answered tokens.", rich_help_panel=_COST)
]
BudgetOption = Annotated[
    float | None,
    typer.Option(help="Stop asking when this call has cost that much.", rich_help_panel=_COST),
]
DeviceOption = Annotated[str, typer.Option(help="Of the segmenter: auto, cpu, cuda, mps.")]


def rationales(
    data: DataOption,
    writer: WriterOption,
    out: OutOption = Path("runs/rationales"),
    split: SplitOption = Split.TRAIN,
    limit: LimitOption = None,
    variants: VariantsOption = 1,
    mirror: MirrorOption = False,
    fast_share: FastShareOption = 0.25,
    minimum_iou: MinimumIouOption = 0.7,
    minimum_faithful: MinimumFaithfulOption = 0.8,
    tries: TriesOption = 3,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: MaxNewTokensOption = 512,
    max_pixels: MaxPixelsOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    concurrent: ConcurrentOption = 8,
    cache: CacheOption = None,
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
    budget: BudgetOption = None,
    segmenter: FrozenSegmenterOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Let a strong model word the measured cues while it looks at the photo with the true mask drawn on it.

    What it writes is checked: form, length, whether its statements hold for the mask, whether the expression
    leads the segmenter back to the mask. Answers are kept, so the same call after a kill, a failure or a
    spent budget goes on and pays nothing twice.
    """
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.device import choose_device
    from saliency_r1.errors import SaliencyError
    from saliency_r1.policy.endpoints.endpoint import Endpoint
    from saliency_r1.policy.options import is_endpoint
    from saliency_r1.segmenters.load_segmenter import load_segmenter
    from saliency_r1.writing.writer_jobs import WriterSetting, write_rationales
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
    frozen = load_segmenter(segmenter, device)
    remarks = Console(stderr=True, highlight=False, markup=False)
    place = choose_device(device)
    remarks.print(f"The segmenter is {frozen.name}, on {place}; the writer is {model.endpoint.name}.")
    shown = partial(track, description=split.value, console=remarks)
    several: dict[str, Any] = {"split": split.value, "limit": limit, "concurrent": concurrent}
    counts = write_rationales(data, model, frozen, setting, out, track=shown, **several)
    print((out / f"{split.value}-counts.json").read_text())
    _tell_what_is_left(counts, remarks)
    raise typer.Exit(1 if counts.outcomes["no answer"] else 0)


def _tell_what_is_left(counts: SFTCounts, remarks: Console) -> None:
    for why in ("over the budget", "no answer"):
        if photos := counts.outcomes[why]:
            remarks.print(f"{photos} photos are left ({why}): the same call goes on with them.")
