"""Load weights safely: safetensors, with their processor, and without code of their own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from saliency_r1.device import choose_device
from saliency_r1.errors import SaliencyError, one_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt"]


def weights_folder(source: str, kind: str) -> Path:
    """Return the folder, or the local copy of the hub's repository with that name, which is downloaded.

    Args:
        source: a folder, or a hub name (owner/model), optionally with `@` and a branch, tag, commit or pull
            request (owner/model@refs/pr/1).
        kind: the expected content, for the error.

    Raises:
        SaliencyError: if it is no folder and the hub does not have it.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_FETCHED))
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise SaliencyError(
            f"no {kind} weights in {source!r}: it is no folder, and the hub gave nothing ({reason})"
        ) from None


def shown_name(source: str) -> str:
    """Return the name of weights in results: the last part of a folder, or the hub name."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read the mapping in a JSON file.

    Raises:
        SaliencyError: if it is missing, is not JSON, or holds no mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SaliencyError(f"{path.parent} has no {path.name}: give a folder of {kind} weights") from None
    except ValueError as error:
        raise SaliencyError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise SaliencyError(f"{path} holds no mapping: give the one of {kind} weights")
    return content


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: those that its index names, or the single one.

    Raises:
        SaliencyError: if there are none. Pickled weights are never read: a pickle can run any code.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise SaliencyError(f"{index} is no index of safetensors files: fetch it again") from None
        # Only the name: an index must not lead out of its folder.
        return [folder / Path(name).name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise SaliencyError(
        f"{folder} has no {WEIGHTS}, and pickled weights (pytorch_model*.bin) are never read: name a "
        "revision that has it (owner/model@refs/pr/1), or convert them once, saliency-r1 models convert "
        "FILE.bin OUT"
    )


def check_dtype(name: str) -> None:
    """Refuse a dtype that is neither in `DTYPES` nor `auto`."""
    if name != "auto" and name not in DTYPES:
        raise SaliencyError(f"unknown dtype {name!r}: choose auto, {', '.join(DTYPES)}")


def load_model(
    model_class: Any, source: str, kind: str, model_types: Collection[str], device: str, dtype: str
) -> tuple[Any, Path]:
    """Load a transformers model in evaluation mode, from weights in the standard folder layout.

    Args:
        model_class: its class in transformers.
        source: a folder or a hub name.
        kind: name of the weights in errors.
        model_types: allowed values of `model_type` in `config.json`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        dtype: type of the weights in memory: `float32`, `bfloat16`, `float16`; `auto` is float32 on the CPU
            and the stored type elsewhere.

    Returns:
        The model, and the folder it came from.

    Raises:
        SaliencyError: if there are no such weights, if they are pickled, of another model or incomplete, need
            their own code or lack a processor, or if the machine has no such device.
    """
    place = choose_device(device)
    check_dtype(dtype)
    folder = weights_folder(source, kind)
    config = read_json(folder / "config.json", kind)
    if config.get("model_type") not in model_types:
        raise SaliencyError(
            f"{folder / 'config.json'} has model_type {config.get('model_type')!r}: {kind} weights have "
            f"{' or '.join(map(repr, model_types))}"
        )
    refuse_code(folder)
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise SaliencyError(
            f"{folder} has no processor ({' or '.join(PROCESSOR_FILES)}): copy that of the model it was made "
            "from"
        )
    weight_files(folder)
    default = torch.float32 if place.type == "cpu" else "auto"
    try:
        with whole_weights():
            model, report = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=DTYPES.get(dtype, default),
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SaliencyError(f"{folder} is no {kind} model that can be read: {reason}") from None
    if missing := sorted(report["missing_keys"]):
        # transformers would continue with random numbers instead.
        raise SaliencyError(f"{folder} lacks {len(missing)} tensors of {kind}, the first is {missing[0]}")
    return model.eval().requires_grad_(False).to(place), folder


@contextmanager
def whole_weights() -> Iterator[None]:
    """Make `from_pretrained` load a whole model in each process, even if DeepSpeed ZeRO-3 trains another.

    If a trainer's configuration asks for ZeRO-3, transformers would otherwise partition every loaded model.
    """
    from transformers.integrations import deepspeed

    held = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


def load_tokenizer(tokenizer_class: Any, folder: Path, files: Collection[str]) -> Any:
    """Load the tokenizer of a folder.

    Args:
        tokenizer_class: its class in transformers.
        folder: its folder.
        files: the files that replace `tokenizer.json`.

    Raises:
        SaliencyError: if it is missing or cannot be read.
    """
    if not (folder / "tokenizer.json").is_file() and not all((folder / name).is_file() for name in files):
        raise SaliencyError(f"{folder} has no tokenizer: add its tokenizer.json, or {' and '.join(files)}")
    try:
        return tokenizer_class.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SaliencyError(f"the tokenizer in {folder} cannot be read: {error}".splitlines()[0]) from None


def refuse_code(folder: Path) -> None:
    """Refuse weights that need code of their own.

    Raises:
        SaliencyError: if one of the folder's JSON files asks for such code.
    """
    for name in ("config.json", *PROCESSOR_FILES, "tokenizer_config.json"):
        if (folder / name).is_file() and (code := custom_code(read_json(folder / name, ""))):
            raise SaliencyError(
                f"{folder / name} asks for code of its own ({code}), and code that comes with weights is "
                "never run: give weights that transformers itself knows"
            )


def custom_code(content: Any) -> str | None:
    """Return a class that an `auto_map` at any depth names."""
    if not isinstance(content, dict):
        return None
    if named := content.get("auto_map"):
        return str(next(iter(named.values()))) if isinstance(named, dict) else str(named)
    return next((code for part in content.values() if (code := custom_code(part))), None)
