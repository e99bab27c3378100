"""Load a policy of any kind by its name."""

from __future__ import annotations

from pathlib import Path

from saliency_r1.catalogue import ONNX_POLICY, POLICY_KINDS, class_of
from saliency_r1.errors import SaliencyError
from saliency_r1.extras import extras_named
from saliency_r1.nano import POLICY_FOLDER
from saliency_r1.policy.base import Policy
from saliency_r1.policy.options import PolicyOptions, is_endpoint
from saliency_r1.runtime import POLICY_GRAPHS, Runtime, takes_onnx


def load_policy(
    source: str | Path | None,
    *,
    device: str = "auto",
    options: PolicyOptions,
    runtime: Runtime = Runtime.TORCH,
) -> Policy:
    """Load a policy.

    Args:
        source: a folder or a hub name of an image-text-to-text model, `openai:URL#MODEL` for one behind an
            OpenAI-compatible endpoint, or None for the embedded nano policy.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        options: see `saliency_r1.policy.options.PolicyOptions`.
        runtime: library that runs the policy, unless it is behind an endpoint.

    Raises:
        SaliencyError: if there is no such policy, it cannot be read, or an option does not fit it.
    """
    if not is_endpoint(source) and _by_onnx(source, device, options, runtime):
        onnx_policy: Policy = class_of(ONNX_POLICY).load(source, device=device, options=options)
        return onnx_policy
    kind = next(kind for start, kind in POLICY_KINDS.items() if str(source or "").startswith(start))
    with extras_named(f"{source or 'the nano policy on this runtime or device'}"):
        policy: Policy = class_of(kind).load(source, device=device, options=options)
    return policy


def _by_onnx(source: str | Path | None, device: str, options: PolicyOptions, runtime: Runtime) -> bool:
    """Decide whether onnxruntime runs a policy; type and placement of its weights are options of torch."""
    of_torch = [name for name in ("dtype", "device_map") if getattr(options, name) is not None]
    if of_torch and runtime is Runtime.ONNX:
        raise SaliencyError(
            f"{of_torch[0]} is an option of the runtime torch: leave it out, or leave onnx out"
        )
    folder = POLICY_FOLDER if source is None else Path(source) if Path(source).is_dir() else None
    return not of_torch and takes_onnx(runtime, folder, POLICY_GRAPHS, device)
