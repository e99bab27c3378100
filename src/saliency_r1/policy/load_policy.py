"""A policy by its name, of whatever kind."""

from __future__ import annotations

from pathlib import Path

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.base import Policy
from saliency_r1.policy.options import ENDPOINT, PolicyOptions, is_endpoint


def load_policy(source: str | Path | None, *, device: str = "auto", options: PolicyOptions) -> Policy:
    """Load a policy.

    Args:
        source: a folder or a hub name of an image-text-to-text model, `openai:URL#MODEL` for one behind an
            OpenAI-compatible endpoint, or None for the embedded nano policy.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        options: see `saliency_r1.policy.options.PolicyOptions`.

    Raises:
        SaliencyError: if there is no such policy, it cannot be read, or an option does not fit it.
    """
    if is_endpoint(source):
        for name in ("dtype", "device_map", "revision"):
            if getattr(options, name) is not None:
                raise SaliencyError(
                    f"{name} is {getattr(options, name)!r}: the server of {source!r} chooses it, leave it out"
                )
        from saliency_r1.policy.endpoints.openai import OpenAIPolicy

        return OpenAIPolicy.from_address(
            str(source),
            timeout=options.timeout,
            max_pixels=options.max_pixels,
            prompting=options.prompting,
            max_new_tokens=options.max_new_tokens,
            structured=options.structured,
        )
    if options.structured:
        raise SaliencyError(
            f"structured output is the work of a server, and {source or 'the nano policy'} runs here: leave "
            f"--structured out, or name an endpoint ({ENDPOINT}URL#MODEL)"
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
        max_new_tokens=options.max_new_tokens,
    )
