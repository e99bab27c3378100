"""Loading the models of a command, quietly and offline unless a hub name is given."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.errors import SaliencyError

if TYPE_CHECKING:
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.policy.loading import PolicyOptions

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


def load_pipeline(
    policy: str | None, segmenter: str | None, device: str, policy_options: PolicyOptions | None = None
) -> SaliencyPipeline:
    """The pipeline of those models: a folder, a policy's hub name or endpoint, or None for the nano model.

    Raises:
        SaliencyError: if a model is neither there nor may be on the hub, or cannot be loaded.
    """
    from saliency_r1.policy.loading import is_endpoint

    on_the_hub = policy is not None and not is_endpoint(policy) and not Path(policy).exists()
    if on_the_hub and not _HUB_NAME.fullmatch(str(policy)):
        raise SaliencyError(
            f"{policy}: no such folder, and no hub name (owner/model) or endpoint "
            "(openai:http://HOST:PORT/v1#MODEL)"
        )
    if segmenter is not None and not Path(segmenter).is_dir():
        raise SaliencyError(f"{segmenter}: no such folder, expected one with a nano segmenter")
    set_up_hub(online=on_the_hub)

    from saliency_r1.pipeline import SaliencyPipeline

    return SaliencyPipeline.from_pretrained(policy, segmenter, device=device, policy_options=policy_options)


def set_up_hub(*, online: bool) -> None:
    """Have transformers and the hub be quiet, and stay off the network unless `online`.

    They read this once, at import.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if online else "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if online else "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
