"""The options that several commands share. Like every file here, it imports nothing heavier than typer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from saliency_r1.policy.options import TIMEOUT_SECONDS, PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.runtime import Runtime

_policy_option = partial(typer.Option, rich_help_panel="Large policies")


class Split(StrEnum):
    """Which photos: those to train on, or those held out."""

    TRAIN = "train"
    VALIDATION = "validation"


SegmenterOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:WEIGHTS]|FOLDER",
        help="Segmenter: one of the list that `saliency-r1 models` prints. Default: the embedded nano "
        "segmenter.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where the models run: auto, cpu, cuda, cuda:1 or mps.")]
RuntimeOption = Annotated[
    Runtime,
    typer.Option(
        help="Runs the nano models: torch, or onnx if their folder holds graphs; auto prefers onnx."
    ),
]
GroupImagesOption = Annotated[
    int,
    typer.Option(
        min=2,
        help="For cosod: photos that the policy sees at a time. Parts of a larger group vote.",
    ),
]
FastOption = Annotated[bool, typer.Option("--fast", help="Skip the reasoning (about twice as fast).")]


TruncatedOption = Annotated[
    bool, typer.Option("--accept-truncated", help="Read damaged files that end too early, as far as they go.")
]


@dataclass(frozen=True)
class ModelFlags:
    """The options of the models, and of where they run."""

    policy: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|HUB|openai:URL#MODEL",
            help="Language model (policy): an image-text-to-text model, or a model behind an "
            "OpenAI-compatible endpoint. Default: the embedded nano policy.",
        ),
    ] = None
    segmenter: SegmenterOption = None
    device: DeviceOption = "auto"
    runtime: RuntimeOption = Runtime.AUTO


@dataclass(frozen=True)
class PolicyFlags(PolicyOptions):
    """`PolicyOptions` as options of a command."""

    dtype: Annotated[
        str | None,
        _policy_option(
            help="Type of the policy's weights: auto, float32, bfloat16, float16.",
        ),
    ] = None
    device_map: Annotated[
        str | None,
        _policy_option(help="auto spreads the policy over all GPUs. Needs accelerate."),
    ] = None
    revision: Annotated[
        str | None, _policy_option(help="Branch, tag or commit of the policy on the hub.")
    ] = None
    max_pixels: Annotated[
        int | None,
        _policy_option(
            help="Largest number of pixels that the policy sees of a photo. Default: 1003520.",
        ),
    ] = None
    prompting: Annotated[
        Prompting,
        _policy_option(
            help="zero-shot explains the response format; auto does so for models that were not fine-tuned.",
        ),
    ] = Prompting.AUTO
    timeout: Annotated[
        float,
        _policy_option(
            help="Seconds for one question to an endpoint, including retries.",
        ),
    ] = TIMEOUT_SECONDS
    max_new_tokens: Annotated[
        int | None,
        _policy_option(
            min=1,
            help="Largest number of tokens in a response. Default: 192, or 512 if the format is explained.",
        ),
    ] = None
    structured: Annotated[
        bool,
        _policy_option(
            "--structured",
            help="Make the endpoint write only valid tags (vLLM, SGLang).",
        ),
    ] = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that has dataclasses as parameters: their fields become options of the command.

    The options take the place of the parameter, and the command receives the dataclass made from them.

    Example:
        >>> @spread
        ... def show(*, asked: PolicyFlags) -> None:
        ...     print(asked.max_pixels)
        >>> show(**{each.name: each.default for each in fields(PolicyFlags)} | {"max_pixels": 7})
        7
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        group = groups[parameter.name]
        kinds = get_type_hints(group, include_extras=True)
        for each in fields(group):
            default = Parameter.empty if each.default is MISSING else each.default
            parameters.append(
                Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=kinds[each.name])
            )

    @wraps(command)
    def called(*args: Any, **options: Any) -> None:
        for name, group in groups.items():
            options[name] = group(**{each.name: options.pop(each.name) for each in fields(group)})
        command(*args, **options)

    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


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
