"""The embedded nano model: one backbone, a policy that writes and a segmenter that finds."""

from __future__ import annotations

from pathlib import Path

POLICY_FOLDER = Path(__file__).parent / "weights" / "policy"
"""The folder of the nano policy's weights, configuration and tokenizer in the package."""

EMBEDDED_SEGMENTER = Path(__file__).parent / "weights" / "segmenter"
"""The folder of the nano segmenter's weights and configuration."""

_registered = False


def register() -> None:
    """Make the nano policy known to the Auto classes of transformers; a second call does nothing."""
    global _registered
    if _registered:
        return
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    from saliency_r1.nano.configuration import MODEL_TYPE, NanoConfig
    from saliency_r1.nano.policy_model import NanoForImageTextToText
    from saliency_r1.nano.processing import NanoImageProcessor, NanoProcessor

    AutoConfig.register(MODEL_TYPE, NanoConfig, exist_ok=True)
    AutoModelForImageTextToText.register(NanoConfig, NanoForImageTextToText, exist_ok=True)
    # TRL loads a reference model of an architecture that transformers does not know with this one.
    AutoModelForCausalLM.register(NanoConfig, NanoForImageTextToText, exist_ok=True)
    AutoImageProcessor.register(
        NanoConfig, image_processor_classes={"pil": NanoImageProcessor}, exist_ok=True
    )
    AutoProcessor.register(NanoConfig, NanoProcessor, exist_ok=True)
    _registered = True
