"""A policy by its name, of whatever kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.base import Policy
from saliency_r1.policy.prompts import Prompting

ENDPOINT = "openai:"
"""What the name of a policy behind an endpoint begins with."""

TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class PolicyOptions:
    """How a policy is loaded and asked; None leaves a choice to the policy.

    Attributes:
        dtype: of the weights: `auto`, `float32`, `bfloat16` or `float16`.
        device_map: how accelerate spreads the model, `auto` for over all GPUs.
        revision: branch, tag or commit on the hub.
        max_pixels: pixels of a photo that the policy looks at.
        prompting: whether the response format is explained to it.
        timeout: seconds for one question to an endpoint, all tries together.
    """

    dtype: str | None = None
    device_map: str | None = None
    revision: str | None = None
    max_pixels: int | None = None
    prompting: Prompting = Prompting.AUTO
    timeout: float = TIMEOUT_SECONDS


def is_endpoint(source: object) -> bool:
    """Whether that names a policy behind an endpoint."""
    return isinstance(source, str) and source.startswith(ENDPOINT)


def load_policy(source: str | Path | None, *, device: str = "auto", options: PolicyOptions) -> Policy:
    """Load a policy.

    Args:
        source: a folder or a hub name of an image-text-to-text model, `openai:URL#MODEL` for one behind an
            OpenAI-compatible endpoint, or None for the embedded nano policy.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        options: see `PolicyOptions`.

    Raises:
        SaliencyError: if there is no such policy, it cannot be read, or an option does not fit it.
    """
    if is_endpoint(source):
        for name in ("dtype", "device_map", "revision"):
            if getattr(options, name) is not None:
                raise SaliencyError(
                    f"{name} is {getattr(options, name)!r}: the server of {source!r} chooses it, leave it out"
                )
        from saliency_r1.policy.openai import OpenAIPolicy

        return OpenAIPolicy.from_address(
            str(source), timeout=options.timeout, max_pixels=options.max_pixels, prompting=options.prompting
        )
    from saliency_r1.policy.transformers import TransformersPolicy

    return TransformersPolicy.from_pretrained(
        source,
        device=device,
        dtype=options.dtype,
        device_map=options.device_map,
        revision=options.revision,
        max_pixels=options.max_pixels,
        prompting=options.prompting,
    )
