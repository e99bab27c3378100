"""The table of known models: their names, loaders, sizes and licences.

A new segmenter is a file in `segmenters/` and an entry of `SEGMENTERS`; a new kind of policy is a file in
`policy/` and an entry of `POLICY_KINDS`. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

APACHE = "Apache-2.0"

NANO = "nano"
"""The name of the embedded policy and of the embedded segmenter."""

ENDPOINT = "openai:"
"""The prefix of the name of a policy behind an endpoint."""


@dataclass(frozen=True)
class KnownModel:
    """Facts of one model.

    Attributes:
        name: its name for `--segmenter`; for a policy, a short name for tables.
        weights: names of its published weights on the hub; empty if they come with the package.
        parameters: number of loaded parameters, in millions.
        licence: licence of the weights.
        remark: further facts for choosing a model.
        loader: `module:class` in this package, whose `from_pretrained` loads a segmenter from its weights, a
            device and a dtype; empty for the embedded one and for policies, see `POLICY_KINDS`.
        options: further arguments of `from_pretrained`.
    """

    name: str
    weights: tuple[str, ...]
    parameters: float
    licence: str
    remark: str = ""
    loader: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def weight_bytes(self, bytes_each: int) -> int:
        """Return the memory of the weights, at 4 bytes each (float32) or 2 (bfloat16, float16)."""
        return round(self.parameters * 1e6 * bytes_each)


def class_of(loader: str) -> Any:
    """Import what `module:class` names, relative to this package."""
    module, _, name = loader.partition(":")
    return getattr(import_module(f"saliency_r1.{module}"), name)


POLICY_KINDS = {
    ENDPOINT: "policy.endpoints.openai:OpenAIPolicy",
    "": "policy.transformers:TransformersPolicy",
}
"""Prefixes of policy names, each with the class whose `load` takes such a name; the first match counts."""

ONNX_POLICY = "policy.onnx.policy:OnnxPolicy"
"""The class that runs a nano policy without torch."""

POLICIES = (
    KnownModel(NANO, (), 11.2, APACHE, "embedded; the default"),
    KnownModel("Qwen2.5-VL 3B", ("Qwen/Qwen2.5-VL-3B-Instruct",), 3755, "Qwen Research", "not commercial"),
    KnownModel("Qwen2.5-VL 7B", ("Qwen/Qwen2.5-VL-7B-Instruct",), 8292, APACHE),
    KnownModel("Qwen3-VL 4B", ("Qwen/Qwen3-VL-4B-Instruct",), 4438, APACHE),
    KnownModel("Qwen3-VL 8B", ("Qwen/Qwen3-VL-8B-Instruct",), 8767, APACHE),
    KnownModel("SmolVLM2 2.2B", ("HuggingFaceTB/SmolVLM2-2.2B-Instruct",), 2247, APACHE),
    KnownModel("LLaVA-OneVision 7B", ("llava-hf/llava-onevision-qwen2-7b-ov-hf",), 8030, APACHE),
)

SEGMENTERS = (
    KnownModel(NANO, (), 7.8, APACHE, "embedded; the default"),
    KnownModel(
        "clipseg",
        ("CIDAS/clipseg-rd64-refined",),
        151,
        APACHE,
        "soft masks, 352 pixels",
        "segmenters.clipseg:ClipSegSegmenter",
    ),
    KnownModel(
        "grounded-sam",
        ("IDEA-Research/grounding-dino-base", "facebook/sam-vit-huge"),
        873,
        APACHE,
        "instances",
        "segmenters.grounded_sam:GroundedSamSegmenter",
        {"version": 1},
    ),
    KnownModel(
        "grounded-sam2",
        ("IDEA-Research/grounding-dino-base", "facebook/sam2.1-hiera-large"),
        449,
        APACHE,
        "instances",
        "segmenters.grounded_sam:GroundedSamSegmenter",
        {"version": 2},
    ),
    KnownModel(
        "sam3",
        ("facebook/sam3",),
        840,
        "SAM License",
        "instances; on the hub, ask for access first",
        "segmenters.sam3:Sam3Segmenter",
    ),
    KnownModel(
        "evf-sam",
        ("YxZhang/evf-sam-multitask",),
        1320,
        "see its card",
        "the paper's; safetensors may be on another revision: docs/evf-sam.md",
        "segmenters.evf_sam.segmenter:EvfSamSegmenter",
    ),
)
