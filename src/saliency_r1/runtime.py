"""Choose what runs the nano networks: torch, or onnxruntime, which is small and starts quickly."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1.choices import Choice
from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.workers import default_workers

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

VISION, LANGUAGE = POLICY_GRAPHS = ("vision.onnx", "language.onnx")
"""Graphs of a nano policy. They lie beside the weights that they read."""

NAMES = "names.onnx"
"""Graph of its reader of names, if it has one."""

ENCODE, SEGMENT = SEGMENTER_GRAPHS = ("encode.onnx", "segment.onnx")
"""Graphs of a nano segmenter."""

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}


class Runtime(Choice):
    """The library that runs the models.

    `ONNX` runs nano models whose folders hold graphs, see `saliency-r1 export --format onnx`. `AUTO` uses it
    for these models if onnxruntime is installed and supports the device, and torch for all others.
    """

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"


def takes_onnx(runtime: Runtime, folder: Path | None, graphs: Sequence[str], device: str) -> bool:
    """Decide whether onnxruntime runs the model of a folder.

    Args:
        runtime: the runtime that was asked for.
        folder: folder of the model; None for a model that is not on disk.
        graphs: names of the graph files that it needs.
        device: device that was asked for.

    Raises:
        SaliencyError: if onnxruntime was asked for and cannot run the model.
    """
    if runtime is Runtime.TORCH:
        return False
    missing = [name for name in graphs if folder is None or not (folder / name).is_file()]
    absent = [name for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]
    if runtime is Runtime.AUTO:
        return not missing and not absent and (device in ("auto", "cpu") or _has(device))
    if missing:
        raise SaliencyError(
            f"{folder or 'a model on the hub'} has no {missing[0]}: onnxruntime runs the nano models whose "
            "folders hold their graphs (saliency-r1 export MODEL --out FOLDER --format onnx)"
        )
    if absent:
        raise SaliencyError(f"the runtime onnx needs {absent[0]}: pip install {absent[0]}")
    return True


def open_session(path: Path, device: str = "auto") -> InferenceSession:
    """Open a network for onnxruntime.

    It uses as many threads as OMP_NUM_THREADS says, or one for each core, at most 8.

    Args:
        path: file of the graph; the weights may lie beside it.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` uses CUDA if onnxruntime supports it.

    Raises:
        SaliencyError: if the file is not a network, or onnxruntime does not support the device.
    """
    providers = _providers(device)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # Threads that wait for work by spinning would take the time of what else is done meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it finds is raised too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each status
        raise SaliencyError(
            f"{path}: not a network that onnxruntime can run ({one_line(error)}); write it again with "
            "saliency-r1 export --format onnx"
        ) from error


def open_sessions(paths: Sequence[Path], device: str = "auto") -> list[InferenceSession]:
    """Open several networks at the same time; see `open_session`."""
    with ThreadPoolExecutor(min(len(paths), threads())) as pool:
        return list(pool.map(open_session, paths, [device] * len(paths)))


def threads() -> int:
    """Return the number of threads of one network on a CPU."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else default_workers()


def place_of(device: str) -> str:
    """Return the name of the device that `open_session` uses."""
    if device != "auto":
        return device
    return "cuda" if _has("cuda") else "cpu"


def _has(device: str) -> bool:
    import onnxruntime

    return _PROVIDERS.get(device.partition(":")[0]) in onnxruntime.get_available_providers()


def _providers(device: str) -> list[Any]:
    if not _DEVICE.fullmatch(device):
        raise SaliencyError(f"unknown device {device!r}: choose auto, cpu, cuda, cuda:0 or mps")
    kind, _, number = place_of(device).partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if not _has(kind):
        raise SaliencyError(
            f"this onnxruntime has no device {device!r}: leave the device on auto, or run it with torch"
        )
    options = {"device_id": number} if number else {}
    return [(_PROVIDERS[kind], options), "CPUExecutionProvider"]
