"""Saliency reasoning with multimodal language models: what stands out in a picture, in words and as masks.

The names below load on first use, so that `import saliency_r1` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saliency_r1.errors import ImageError, ResponseError, SaliencyError
    from saliency_r1.images import load_image
    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.response import Response, parse_lenient, parse_strict
    from saliency_r1.result import Instance, SaliencyResult
    from saliency_r1.tasks import Task

    __version__: str

_HOMES = {
    "ImageError": "errors",
    "Instance": "result",
    "Response": "response",
    "ResponseError": "errors",
    "SaliencyError": "errors",
    "SaliencyPipeline": "pipeline",
    "SaliencyResult": "result",
    "Task": "tasks",
    "load_image": "images",
    "parse_lenient": "response",
    "parse_strict": "response",
}

__all__ = [
    "ImageError",
    "Instance",
    "Response",
    "ResponseError",
    "SaliencyError",
    "SaliencyPipeline",
    "SaliencyResult",
    "Task",
    "__version__",
    "load_image",
    "parse_lenient",
    "parse_strict",
]


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("saliency-r1")
    elif name in _HOMES:
        value = getattr(import_module(f"saliency_r1.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'saliency_r1' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
