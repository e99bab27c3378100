"""A segmenter by its name, with its published weights or others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.catalogue import NANO, SEGMENTERS, class_of
from saliency_r1.errors import SaliencyError
from saliency_r1.extras import extras_named
from saliency_r1.nano import EMBEDDED_SEGMENTER
from saliency_r1.runtime import SEGMENTER_GRAPHS, Runtime, takes_onnx
from saliency_r1.segmenters.base import Segmenter

if TYPE_CHECKING:
    from saliency_r1.segmenters.batched import BatchedSegmenter

SEMANTICS = ("off", "on", "auto")

_KNOWN = {model.name: model for model in SEGMENTERS}


def parse_segmenter(source: str | Path | None) -> tuple[str, tuple[str, ...]]:
    """The name and the weights that `--segmenter` asks for.

    Args:
        source: a name; a name with weights, `NAME:WEIGHTS`, of which `grounded-sam` and `grounded-sam2` have
            two, `NAME:DETECTOR,SAM`; the folder of a nano segmenter; None for the embedded one. `evf-sam` may
            end in `,semantic=auto`, see `parse_semantic`.

    Returns:
        The name, and its weights, each a folder or a hub name, that one with `@REVISION` if given; none for
        the embedded segmenter.

    Raises:
        SaliencyError: if there is no such name, or not as many weights as it has.
    """
    if source is None:
        return NANO, ()
    text = str(source)
    if Path(text).is_dir():
        return NANO, (text,)
    text, _ = parse_semantic(text)
    name, colon, given = text.partition(":")
    if name not in _KNOWN:
        raise SaliencyError(
            f"{text}: no such folder, expected that of a nano segmenter, or one of {', '.join(_KNOWN)}, "
            "alone or with weights (NAME:FOLDER or NAME:HUB-NAME)"
        )
    if not colon:
        return name, _KNOWN[name].weights
    two = len(_KNOWN[name].weights) == 2
    weights = tuple(given.split(",")) if two else (given,)
    if len(weights) != (2 if two else 1) or not all(weights):
        expected = f"{name}:DETECTOR,SAM" if two else f"{name}:WEIGHTS"
        raise SaliencyError(f"segmenter {text!r}: expected {expected}, each a folder or a hub name")
    return name, weights


def parse_semantic(source: str | Path | None) -> tuple[str, str]:
    """Split off the option of `--segmenter`: which expressions get EVF-SAM's `[semantic] `.

    Returns:
        The name with its weights; `off`, `on`, or `auto`, see `EvfSamSegmenter`.

    Raises:
        SaliencyError: if another segmenter than `evf-sam` has the option, or it has another value.

    Example:
        >>> parse_semantic("evf-sam:YxZhang/evf-sam-multitask,semantic=auto")
        ('evf-sam:YxZhang/evf-sam-multitask', 'auto')
    """
    text, comma, value = str(source).rpartition(",semantic=")
    if not comma:
        return str(source), "off"
    if text.partition(":")[0] != "evf-sam" or value not in SEMANTICS:
        raise SaliencyError(
            f"segmenter {str(source)!r}: semantic is an option of evf-sam, one of {', '.join(SEMANTICS)}, as "
            "in evf-sam,semantic=auto"
        )
    return text, value


def open_segmenter(
    source: str | Path | None, device: str = "auto", dtype: str = "auto", *, runtime: Runtime
) -> Segmenter:
    """Load a segmenter for a runtime; see `load_segmenter`, which always uses torch.

    Raises:
        SaliencyError: see `load_segmenter`; also if onnxruntime was asked for and cannot run it.
    """
    name, weights = parse_segmenter(source)
    folder = None
    if name == NANO:
        folder = Path(weights[0]) if weights else EMBEDDED_SEGMENTER
    if dtype in ("auto", "float32") and takes_onnx(runtime, folder, SEGMENTER_GRAPHS, device):
        from saliency_r1.segmenters.onnx import OnnxSegmenter

        return OnnxSegmenter(folder, device)
    with extras_named(f"the segmenter {name}"):
        return load_segmenter(source, device, dtype)


def load_segmenter(source: str | Path | None, device: str = "auto", dtype: str = "auto") -> BatchedSegmenter:
    """Load a segmenter.

    Args:
        source: see `parse_segmenter`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        dtype: type of the weights in memory: `float32`, `bfloat16`, `float16`; `auto` is float32 on the CPU
            and the stored type elsewhere. The nano segmenter runs in float32.

    Raises:
        SaliencyError: if there is no such segmenter, or it cannot or must not be loaded.
    """
    name, weights = parse_segmenter(source)
    if name == NANO:
        from saliency_r1.segmenters.nano import NanoSegmenter

        if dtype not in ("auto", "float32"):
            raise SaliencyError(f"the nano segmenter runs in float32, not {dtype!r}: leave the dtype on auto")
        if weights and not Path(weights[0]).is_dir():
            raise SaliencyError(f"{weights[0]}: no such folder, expected one with a nano segmenter")
        if weights:
            _check_nano(Path(weights[0]))
        return NanoSegmenter.from_pretrained(*weights, device=device)
    model = _KNOWN[name]
    options = dict(model.options)
    if name == "evf-sam":
        options["semantic"] = parse_semantic(source)[1]
    loaded: BatchedSegmenter = class_of(model.loader).from_pretrained(*weights, device, dtype, **options)
    return loaded


def _check_nano(folder: Path) -> None:
    """Say how to name weights of another kind, which are given like a nano segmenter's."""
    from saliency_r1.checkpoint import read_json

    config = read_json(folder / "config.json", "nano segmenter")
    kind = config.get("model_type")
    if kind is not None and "words" not in config:
        others = ", ".join(model.name for model in SEGMENTERS if model.weights)
        raise SaliencyError(
            f"{folder} holds no nano segmenter but a model of type {kind!r}: put its kind before it, "
            f"NAME:{folder}, one of {others}"
        )
