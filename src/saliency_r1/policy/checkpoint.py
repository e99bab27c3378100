"""What a checkpoint must be to be loaded: safetensors, a processor, and no code of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from saliency_r1.checkpoint import PROCESSOR_FILES, custom_code
from saliency_r1.errors import SaliencyError

_JSON_FILES = ("config.json", *PROCESSOR_FILES, "video_preprocessor_config.json", "tokenizer_config.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check_checkpoint(source: str, revision: str | None = None) -> None:
    """Refuse a policy's checkpoint that cannot or must not be loaded, before anything of it is.

    On the hub the small JSON files alone are fetched.

    Args:
        source: a folder or a hub name.
        revision: branch, tag or commit on the hub.

    Raises:
        SaliencyError: if it has no configuration or no processor, brings code of its own, or is a folder
            whose weights are pickled or absent.
        OSError: if the hub cannot be reached, or has no such model.
    """
    if Path(source).is_file():
        raise SaliencyError(f"{source}: a file, expected the folder of a model (config.json, *.safetensors)")
    found = {name: _read(source, name, revision) for name in _JSON_FILES}
    if found["config.json"] is None:
        adapter = _read(source, "adapter_config.json", revision) is not None
        what = "is an adapter without its model: merge it first" if adapter else "has no config.json"
        raise SaliencyError(f"no policy could be loaded from {source!r}: it {what}")
    for name, content in found.items():
        if code := custom_code(content):
            raise SaliencyError(
                f"no policy could be loaded from {source!r}: its {name} asks for code of its own ({code}), "
                "and code that comes with a model is never run; choose one that transformers itself knows"
            )
    if not any(found[name] for name in PROCESSOR_FILES):
        raise SaliencyError(
            f"no policy could be loaded from {source!r}: it has no processor "
            f"({' or '.join(PROCESSOR_FILES)}); copy that of the model it was made from, or choose "
            "an image-text-to-text model"
        )
    if Path(source).is_dir():
        _check_weights(Path(source))


def _check_weights(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".safetensors") for name in names):
        return
    pickled = next((name for name in names if name.endswith(_PICKLES)), None)
    reason = (
        f"its weights are pickled ({pickled}), and a pickle can run any code; save them as safetensors"
        if pickled
        else "it has no weights (model.safetensors)"
    )
    raise SaliencyError(f"no policy could be loaded from {str(folder)!r}: {reason}")


def _read(source: str, name: str, revision: str | None) -> Any:
    """The content of a JSON file of the checkpoint, None if it is absent."""
    path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError:
        raise SaliencyError(f"no policy could be loaded from {source!r}: {name} is no JSON") from None
