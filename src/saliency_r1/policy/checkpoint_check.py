"""Check that a checkpoint can be loaded: it needs safetensors and a processor, and no code of its own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from saliency_r1.checkpoint import PROCESSOR_FILES, custom_code
from saliency_r1.errors import SaliencyError, one_line

_JSON_FILES = ("config.json", *PROCESSOR_FILES, "video_preprocessor_config.json", "tokenizer_config.json")
_LONGEST_REASON = 300
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def reachable(source: str, revision: str | None = None) -> str:
    """Return the place to load a checkpoint from: the source, or its copy in the cache if the hub is away.

    Args:
        source: a folder or a hub name.
        revision: branch, tag or commit on the hub.

    Returns:
        `source`, or the folder of the copy.

    Raises:
        SaliencyError: if it is a file, if the hub has no such model or revision or refuses it, or if the hub
            cannot be reached and there is no copy.
    """
    if Path(source).is_file():
        raise SaliencyError(f"{source}: a file, expected the folder of a model (config.json, *.safetensors)")
    return source if Path(source).is_dir() else _on_the_hub(source, revision)


@cache
def _on_the_hub(source: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(source, revision=revision)
    except (HfHubHTTPError, ValueError) as error:  # the hub answered, or the name is invalid
        raise SaliencyError(_refused(source, f"the hub does not give it ({_line(error)})")) from None
    except Exception:  # any error of the HTTP library in use
        try:
            return snapshot_download(source, revision=revision, local_files_only=True)
        except OSError:
            why = "the hub cannot be reached, and the cache on this machine does not hold it"
            raise SaliencyError(_refused(source, why)) from None
    return source


def check_checkpoint(source: str, revision: str | None = None) -> None:
    """Refuse a policy's checkpoint that cannot or must not be loaded, before any of it is loaded.

    From the hub only the small JSON files are fetched.

    Args:
        source: a folder, or a hub name that `reachable` gave.
        revision: branch, tag or commit on the hub.

    Raises:
        SaliencyError: if it has no configuration or no processor, needs its own code, or its weights are
            pickled or missing.
    """
    found = {name: _read(source, name, revision) for name in _JSON_FILES}
    if found["config.json"] is None:
        adapter = _read(source, "adapter_config.json", revision) is not None
        what = "is an adapter without its model: merge it first" if adapter else "has no config.json"
        raise SaliencyError(_refused(source, f"it {what}"))
    for name, content in found.items():
        if code := custom_code(content):
            why = (
                f"its {name} asks for code of its own ({code}), and code that comes with a model is never "
                "run; choose one that transformers itself knows"
            )
            raise SaliencyError(_refused(source, why))
    if not any(found[name] for name in PROCESSOR_FILES):
        why = (
            f"it has no processor ({' or '.join(PROCESSOR_FILES)}); copy that of the model it was made from, "
            "or choose an image-text-to-text model"
        )
        raise SaliencyError(_refused(source, why))
    _check_weights(source, revision)


def _check_weights(source: str, revision: str | None) -> None:
    if Path(source).is_dir():
        names = sorted(path.name for path in Path(source).iterdir())
    else:
        from huggingface_hub import HfApi

        names = sorted(HfApi().list_repo_files(source, revision=revision))
    if any(name.endswith(".safetensors") for name in names):
        return
    pickled = next((name for name in names if name.endswith(_PICKLES)), None)
    reason = (
        f"its weights are pickled ({pickled}), and a pickle can run any code; save them as safetensors"
        if pickled
        else "it has no weights (model.safetensors)"
    )
    raise SaliencyError(_refused(source, reason))


def _read(source: str, name: str, revision: str | None) -> Any:
    """Return the content of a JSON file of the checkpoint; None if it is missing."""
    path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError:
        raise SaliencyError(_refused(source, f"{name} is no JSON")) from None


def _refused(source: str, reason: str) -> str:
    return f"no policy could be loaded from {source!r}: {reason}"


def _line(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
