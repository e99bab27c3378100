"""How a policy is named, loaded and asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saliency_r1.catalogue import ENDPOINT
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.prompts import Prompting

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
        max_new_tokens: where a response ends at the latest; None for 192 tokens, or 512 where the format is
            explained.
        structured: whether an endpoint is to hold its answers to the tags, where its server can.
    """

    dtype: str | None = None
    device_map: str | None = None
    revision: str | None = None
    max_pixels: int | None = None
    prompting: Prompting = Prompting.AUTO
    timeout: float = TIMEOUT_SECONDS
    max_new_tokens: int | None = None
    structured: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise SaliencyError(f"max_new_tokens is {self.max_new_tokens}: give at least 1")

    def only(self, *names: str) -> dict[str, Any]:
        """Return the options of these names, as arguments."""
        return {name: getattr(self, name) for name in names}


def is_endpoint(source: object) -> bool:
    """Whether that names a policy behind an endpoint."""
    return isinstance(source, str) and source.startswith(ENDPOINT)
