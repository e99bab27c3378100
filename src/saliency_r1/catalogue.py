"""The models that are known by name: what they are, how large, under which licence. It loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

APACHE = "Apache-2.0"


@dataclass(frozen=True)
class KnownModel:
    """Facts of one model.

    Attributes:
        name: what `--segmenter` calls it; of a policy, a short name for tables.
        weights: where its published weights lie on the hub; none if they come with the package.
        parameters: how many, in millions, of what is loaded.
        licence: of the weights.
        remark: what else a person who chooses should know.
    """

    name: str
    weights: tuple[str, ...]
    parameters: float
    licence: str
    remark: str = ""

    def weight_bytes(self, bytes_each: int) -> int:
        """Memory of the weights alone, at 4 bytes each (float32) or 2 (bfloat16, float16)."""
        return round(self.parameters * 1e6 * bytes_each)


POLICIES = (
    KnownModel("nano", (), 11.2, APACHE, "embedded; the default"),
    KnownModel("Qwen2.5-VL 3B", ("Qwen/Qwen2.5-VL-3B-Instruct",), 3755, "Qwen Research", "not commercial"),
    KnownModel("Qwen2.5-VL 7B", ("Qwen/Qwen2.5-VL-7B-Instruct",), 8292, APACHE),
    KnownModel("Qwen3-VL 4B", ("Qwen/Qwen3-VL-4B-Instruct",), 4438, APACHE),
    KnownModel("Qwen3-VL 8B", ("Qwen/Qwen3-VL-8B-Instruct",), 8767, APACHE),
    KnownModel("SmolVLM2 2.2B", ("HuggingFaceTB/SmolVLM2-2.2B-Instruct",), 2247, APACHE),
    KnownModel("LLaVA-OneVision 7B", ("llava-hf/llava-onevision-qwen2-7b-ov-hf",), 8030, APACHE),
)

SEGMENTERS = (
    KnownModel("nano", (), 7.8, APACHE, "embedded; the default"),
    KnownModel("clipseg", ("CIDAS/clipseg-rd64-refined",), 151, APACHE, "soft masks, 352 pixels"),
    KnownModel(
        "grounded-sam",
        ("IDEA-Research/grounding-dino-base", "facebook/sam-vit-huge"),
        873,
        APACHE,
        "instances",
    ),
    KnownModel(
        "grounded-sam2",
        ("IDEA-Research/grounding-dino-base", "facebook/sam2.1-hiera-large"),
        449,
        APACHE,
        "instances",
    ),
    KnownModel("sam3", ("facebook/sam3",), 840, "SAM License", "instances; on the hub, ask for access first"),
    KnownModel(
        "evf-sam",
        ("YxZhang/evf-sam-multitask",),
        1320,
        "see its card",
        "of the paper; safetensors may be on a revision: docs/large-models.md",
    ),
)
