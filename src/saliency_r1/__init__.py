"""Find what stands out in a photo, as masks and in words, with multimodal language models.

The names below load on first use, so `import saliency_r1` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saliency_r1.lazy import lazy_names

if TYPE_CHECKING:
    from saliency_r1.errors import ImageError, ResponseError, SaliencyError
    from saliency_r1.evaluation.compare import compare
    from saliency_r1.evaluation.runner import Request, evaluate
    from saliency_r1.images import load_image
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.policy.base import Policy, PolicyOutput
    from saliency_r1.policy.options import PolicyOptions
    from saliency_r1.response import Response, parse_lenient, parse_strict
    from saliency_r1.result import Instance, SaliencyResult
    from saliency_r1.segmenters.base import Segmentation, Segmenter
    from saliency_r1.segmenters.load_segmenter import load_segmenter
    from saliency_r1.tasks import Task
    from saliency_r1.training.fine_tuning.large import LargeSFTRecipe, train_large_sft
    from saliency_r1.training.fine_tuning.nano import train_sft
    from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
    from saliency_r1.training.reinforcement.cgpo import CGPOTrainer
    from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig
    from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe, train_rl
    from saliency_r1.training.segmenter.recipe import SegmenterRecipe
    from saliency_r1.training.segmenter.train import train_segmenter

    __version__: str

_HOMES = {
    "CGPOConfig": "training.reinforcement.cgpo_config",
    "CGPORecipe": "training.reinforcement.train",
    "CGPOTrainer": "training.reinforcement.cgpo",
    "GRPORecipe": "training.reinforcement.train",
    "ImageError": "errors",
    "Instance": "result",
    "LargeSFTRecipe": "training.fine_tuning.large",
    "Policy": "policy.base",
    "PolicyOptions": "policy.options",
    "PolicyOutput": "policy.base",
    "Request": "evaluation.runner",
    "Response": "response",
    "ResponseError": "errors",
    "SFTRecipe": "training.fine_tuning.nano_recipe",
    "SaliencyError": "errors",
    "SaliencyPipeline": "pipeline",
    "SaliencyResult": "result",
    "Segmentation": "segmenters.base",
    "Segmenter": "segmenters.base",
    "SegmenterRecipe": "training.segmenter.recipe",
    "Task": "tasks",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.runner",
    "load_image": "images",
    "load_segmenter": "segmenters.load_segmenter",
    "parse_lenient": "response",
    "parse_strict": "response",
    "train_large_sft": "training.fine_tuning.large",
    "train_rl": "training.reinforcement.train",
    "train_segmenter": "training.segmenter.train",
    "train_sft": "training.fine_tuning.nano",
}

__all__ = [
    "CGPOConfig",
    "CGPORecipe",
    "CGPOTrainer",
    "GRPORecipe",
    "ImageError",
    "Instance",
    "LargeSFTRecipe",
    "Policy",
    "PolicyOptions",
    "PolicyOutput",
    "Request",
    "Response",
    "ResponseError",
    "SFTRecipe",
    "SaliencyError",
    "SaliencyPipeline",
    "SaliencyResult",
    "Segmentation",
    "Segmenter",
    "SegmenterRecipe",
    "Task",
    "__version__",
    "compare",
    "evaluate",
    "load_image",
    "load_segmenter",
    "parse_lenient",
    "parse_strict",
    "train_large_sft",
    "train_rl",
    "train_segmenter",
    "train_sft",
]

_load = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("saliency-r1")
    return _load(name)


def __dir__() -> list[str]:
    return __all__
