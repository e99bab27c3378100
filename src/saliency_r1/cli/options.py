"""The options that several commands share. Like every file here, it imports nothing heavier than typer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.policy.prompts import Prompting

_POLICY = "Large policies"


class Split(StrEnum):
    """Which photos: those to train on, or those held out."""

    TRAIN = "train"
    VALIDATION = "validation"


# The models, and how they are used.
PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|HUB|openai:URL#MODEL",
        help="Language model (policy): an image-text-to-text model, or a model behind an OpenAI-compatible "
        "endpoint. Default: the embedded nano policy.",
    ),
]
SegmenterOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:WEIGHTS]|FOLDER",
        help="Segmenter: one of the list that `saliency-r1 models` prints. Default: the embedded nano "
        "segmenter.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where the models run: auto, cpu, cuda, cuda:1 or mps.")]
GroupImagesOption = Annotated[
    int,
    typer.Option(
        min=2,
        help="For cosod: photos that the policy sees at a time. Parts of a larger group vote.",
    ),
]
FastOption = Annotated[bool, typer.Option("--fast", help="Skip the reasoning (about twice as fast).")]

# A policy that is not the embedded one.
DtypeOption = Annotated[
    str | None,
    typer.Option(
        help="Type of the policy's weights: auto, float32, bfloat16, float16.",
        rich_help_panel=_POLICY,
    ),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option(help="auto spreads the policy over all GPUs. Needs accelerate.", rich_help_panel=_POLICY),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of the policy on the hub.", rich_help_panel=_POLICY)
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        help="Largest number of pixels that the policy sees of a photo. Default: 1003520.",
        rich_help_panel=_POLICY,
    ),
]
PromptingOption = Annotated[
    Prompting,
    typer.Option(
        help="zero-shot explains the response format; auto does so for models that were not fine-tuned.",
        rich_help_panel=_POLICY,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        help="Seconds for one question to an endpoint, including retries.",
        rich_help_panel=_POLICY,
    ),
]
MaxNewTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest number of tokens in a response. Default: 192, or 512 if the format is explained.",
        rich_help_panel=_POLICY,
    ),
]
StructuredOption = Annotated[
    bool,
    typer.Option(
        "--structured",
        help="Make the endpoint write only valid tags (vLLM, SGLang).",
        rich_help_panel=_POLICY,
    ),
]

# What training sets are made of.
FrozenSegmenterOption = Annotated[
    str | None,
    typer.Option(metavar="NAME[:WEIGHTS]|FOLDER", help="The frozen segmenter. Default: the embedded one."),
]
InstancePhotosOption = Annotated[
    list[Path] | None, typer.Option(help="For sis: a data set of photos in COCO JSON. May be repeated.")
]
CacheOption = Annotated[Path, typer.Option(help="Folder where packed photos are kept.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Random seed.")]
