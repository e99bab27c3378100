"""Load a policy of any kind by its name."""

from __future__ import annotations

from pathlib import Path

from saliency_r1.catalogue import POLICY_KINDS, class_of
from saliency_r1.policy.base import Policy
from saliency_r1.policy.options import PolicyOptions


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
    kind = next(kind for start, kind in POLICY_KINDS.items() if str(source or "").startswith(start))
    policy: Policy = class_of(kind).load(source, device=device, options=options)
    return policy
