"""What weights must be to be loaded: safetensors, with their processor, and without code of their own."""

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
    """The folder itself, or where the hub's repository of that name lies once it is fetched.

    Args:
        source: a folder, or a hub name (owner/model), if need be with `@` and a branch, tag, commit or pull
            request of it (owner/model@refs/pr/1).
        kind: what should be in there, for the error.

    Raises:
        SaliencyError: if it is no folder and the hub gives nothing.
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
    """How results call weights from there: the last part of a folder, a hub name as it is."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        SaliencyError: if it is absent, is not JSON, or holds no mapping.
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
    """The safetensors files of a folder, all those that its index names or the one.

    Raises:
        SaliencyError: if there are none. Pickled weights are never read: a pickle can run any code.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise SaliencyError(f"{index} is no index of safetensors files: fetch it again") from None
        # A name alone: an index must not lead out of its folder.
        return [folder / Path(name).name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise SaliencyError(
        f"{folder} has no {WEIGHTS}, and pickled weights (pytorch_model*.bin) are never read: name a "
        "revision that has it (owner/model@refs/pr/1), or convert them once, saliency-r1 models convert "
        "FILE.bin OUT"
    )


def check_dtype(name: str) -> None:
    """Refuse the name of a type of weights that is none of `DTYPES` and not `auto`."""
    if name != "auto" and name not in DTYPES:
        raise SaliencyError(f"unknown dtype {name!r}: choose auto, {', '.join(DTYPES)}")


def load_model(
    model_class: Any, source: str, kind: str, model_types: Collection[str], device: str, dtype: str
) -> tuple[Any, Path]:
    """A transformers model in evaluation mode, from weights in the stock folder layout.

    Args:
        model_class: its class in transformers.
        source: a folder or a hub name.
        kind: what the weights are called, for errors.
        model_types: what `config.json` may have as `model_type`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        dtype: of the weights in memory: `float32`, `bfloat16`, `float16`; `auto` is float32 on the CPU and
            what they are stored in elsewhere.

    Returns:
        The model, and the folder it came from.

    Raises:
        SaliencyError: if there are no such weights, they are pickled, of another model or incomplete, bring
            code of their own or no processor, or the machine has no such device.
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
        # transformers would go on with random numbers in their place.
        raise SaliencyError(f"{folder} lacks {len(missing)} tensors of {kind}, the first is {missing[0]}")
    return model.eval().requires_grad_(False).to(place), folder


@contextmanager
def whole_weights() -> Iterator[None]:
    """Have `from_pretrained` load a model whole in each process, also where DeepSpeed ZeRO-3 trains another.

    While a trainer's configuration asks for ZeRO-3, transformers partitions every model that is loaded.
    """
    from transformers.integrations import deepspeed

    held = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


def load_tokenizer(tokenizer_class: Any, folder: Path, files: Collection[str]) -> Any:
    """The tokenizer of a folder.

    Args:
        tokenizer_class: its class in transformers.
        folder: where it lies.
        files: what it has in place of `tokenizer.json`.

    Raises:
        SaliencyError: if it is not there, or cannot be read.
    """
    if not (folder / "tokenizer.json").is_file() and not all((folder / name).is_file() for name in files):
        raise SaliencyError(f"{folder} has no tokenizer: add its tokenizer.json, or {' and '.join(files)}")
    try:
        return tokenizer_class.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SaliencyError(f"the tokenizer in {folder} cannot be read: {error}".splitlines()[0]) from None


def refuse_code(folder: Path) -> None:
    """Refuse weights that bring code of their own.

    Raises:
        SaliencyError: if one of the folder's JSON files asks for some.
    """
    for name in ("config.json", *PROCESSOR_FILES, "tokenizer_config.json"):
        if (folder / name).is_file() and (code := custom_code(read_json(folder / name, ""))):
            raise SaliencyError(
                f"{folder / name} asks for code of its own ({code}), and code that comes with weights is "
                "never run: give weights that transformers itself knows"
            )


def custom_code(content: Any) -> str | None:
    """Some class that an `auto_map` in there names, however deep."""
    if not isinstance(content, dict):
        return None
    if named := content.get("auto_map"):
        return str(next(iter(named.values()))) if isinstance(named, dict) else str(named)
    return next((code for part in content.values() if (code := custom_code(part))), None)
