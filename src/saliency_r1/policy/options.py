"""Settings for naming, loading and asking a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saliency_r1.catalogue import ENDPOINT
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.prompts import Prompting

TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class PolicyOptions:
    """Settings for loading and asking a policy; None leaves a choice to the policy.

    Attributes:
        dtype: type of the weights: `auto`, `float32`, `bfloat16` or `float16`.
        device_map: how accelerate spreads the model; `auto` uses all GPUs.
        revision: branch, tag or commit on the hub.
        max_pixels: maximum pixels of a photo that the policy sees.
        prompting: whether the response format is explained to it.
        timeout: seconds for one question to an endpoint, including retries.
        max_new_tokens: maximum tokens of a response; None for 192 tokens, or 512 if the format is
            explained.
        structured: whether the endpoint may write only valid tags, if its server can enforce that.
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
        """Return the options with these names, as keyword arguments."""
        return {name: getattr(self, name) for name in names}


def is_endpoint(source: object) -> bool:
    """Whether the name is that of a policy behind an endpoint."""
    return isinstance(source, str) and source.startswith(ENDPOINT)
