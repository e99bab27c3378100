"""The options that several commands share. Like every file here it imports nothing heavier than typer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.policy.prompts import Prompting

_POLICY = "Large policies"


class Split(StrEnum):
    """Photos to train on, and those held out."""

    TRAIN = "train"
    VALIDATION = "validation"


# The models, and how they are asked.
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

# A policy that is not the embedded one.
DtypeOption = Annotated[
    str | None,
    typer.Option(help="Of the policy's weights: auto, float32, bfloat16, float16.", rich_help_panel=_POLICY),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option(help="Spread the policy over GPUs: auto. Needs accelerate.", rich_help_panel=_POLICY),
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel=_POLICY)
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        help="Pixels of a photo that the policy looks at; default 1003520.", rich_help_panel=_POLICY
    ),
]
PromptingOption = Annotated[
    Prompting,
    typer.Option(
        help="zero-shot explains the format; auto does so for models that were not fine-tuned.",
        rich_help_panel=_POLICY,
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        help="Seconds for one question to an endpoint, all tries together.", rich_help_panel=_POLICY
    ),
]
MaxNewTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens of a response at most; default 192, or 512 where the format is explained.",
        rich_help_panel=_POLICY,
    ),
]
StructuredOption = Annotated[
    bool,
    typer.Option(
        "--structured",
        help="Have an endpoint hold its answers to the tags (vLLM, SGLang).",
        rich_help_panel=_POLICY,
    ),
]

# What training sets are made of.
FrozenSegmenterOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:WEIGHTS]|FOLDER", help="The frozen segmenter; the embedded one if not given."
    ),
]
InstancePhotosOption = Annotated[
    list[Path] | None, typer.Option(help="SIS: a COCO json data set of photos; again for another.")
]
CacheOption = Annotated[Path, typer.Option(help="Where packed photos are kept.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Random seed.")]
