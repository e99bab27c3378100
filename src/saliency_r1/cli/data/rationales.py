"""`saliency-r1 data rationales`: let a writer model that sees the true mask word the reasoning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.options import FrozenSegmenterOption, SeedOption, Split, spread
from saliency_r1.policy.options import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from saliency_r1.writing.sft_set import SFTCounts

_COST = "Cost"


DataOption = Annotated[Path, typer.Option(help="The DUTS folder, or one of photos and masks.")]
WriterOption = Annotated[
    str,
    typer.Option(metavar="openai:URL#MODEL", help="The writer model. It must accept images."),
]
OutOption = Annotated[
    Path, typer.Option(help="Folder for SPLIT.jsonl and SPLIT-counts.json, for `train sft`.")
]
SplitOption = Annotated[Split, typer.Option(help="The photos to write about.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of photos, spread over the split, for a trial.")
]
VariantsOption = Annotated[
    int, typer.Option(min=1, help="Number of rationales for each photo; each costs money.")
]
MirrorOption = Annotated[
    bool, typer.Option(help="Also ask about each mirrored photo; this doubles the cost.")
]
FastShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of rationales that also give an example without reasoning.")
]
MinimumIouOption = Annotated[
    float, typer.Option(min=0, max=1, help="Least IoU with which the segmenter must find the true mask.")
]
MinimumFaithfulOption = Annotated[
    float, typer.Option(min=0, max=1, help="Least share of true statements among those that can be checked.")
]
TriesOption = Annotated[int, typer.Option(min=1, help="Maximum number of answers for each rationale.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Temperature of the writer's sampling.")]
MaxNewTokensOption = Annotated[
    int, typer.Option(min=1, help="Maximum tokens of an answer. A writer that thinks first needs more.")
]
MaxPixelsOption = Annotated[int | None, typer.Option(help="Maximum pixels of a photo. Default: 1003520.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds for one question, including retries.")]
ConcurrentOption = Annotated[int, typer.Option(min=1, help="Number of photos processed at a time.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder for answers. Default: OUT/answers.", rich_help_panel=_COST)
]
PriceInOption = Annotated[
    float, typer.Option(min=0, help="Price per million prompt tokens.", rich_help_panel=_COST)
]
PriceOutOption = Annotated[
    float, typer.Option(min=0, help="Price per million completion tokens.", rich_help_panel=_COST)
]
BudgetOption = Annotated[
    float | None,
    typer.Option(help="Stop asking when this call has cost so much.", rich_help_panel=_COST),
]
DeviceOption = Annotated[str, typer.Option(help="Where the segmenter runs: auto, cpu, cuda, mps.")]


@dataclass(frozen=True)
class KeptFlags:
    """The options of how much is written, and of what is kept of it: a part of `WriterSetting`."""

    variants: VariantsOption = 1
    mirror: MirrorOption = False
    fast_share: FastShareOption = 0.25
    minimum_iou: MinimumIouOption = 0.7
    minimum_faithful: MinimumFaithfulOption = 0.8


@spread
def rationales(
    *,
    data: DataOption,
    writer: WriterOption,
    out: OutOption = Path("runs/rationales"),
    split: SplitOption = Split.TRAIN,
    limit: LimitOption = None,
    kept: KeptFlags,
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

    The answers are checked: form, length, whether statements are true of the mask, and whether the expression
    leads the segmenter back to the mask. Answers are kept, so the same command continues after a kill, a
    failure or a spent budget, and no answer is paid twice.
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
        raise SaliencyError(f"{writer}: is not an endpoint; expected openai:http://HOST:PORT/v1#MODEL")
    setting = WriterSetting(**asdict(kept), tries=tries, seed=seed)
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
            remarks.print(f"{photos} photos are left ({why}): the same command continues with them.")
