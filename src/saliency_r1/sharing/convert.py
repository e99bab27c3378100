"""Convert pickled weights to safetensors, only if the user asks for it: no other code here reads a pickle.

A pickle can run any function. It is read with `weights_only=True`, which accepts only tensors and plain
containers, in a separate process.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from saliency_r1.checkpoint import INDEX, WEIGHTS
from saliency_r1.errors import SaliencyError, one_line

_BESIDE = ("*.json", "*.model", "*.txt", "*.jinja")
_LONGEST_REASON = 300


def convert_pickle(source: Path, out: Path) -> int:
    """Write `model.safetensors` from a pickled state dict, and copy the files beside it.

    Args:
        source: the pickle (`pytorch_model.bin`), or the folder that holds one or all its parts.
        out: the folder to write; `model.safetensors` appears in one step.

    Returns:
        The number of tensors.

    Raises:
        SaliencyError: if there is no pickle, if it has anything but named tensors or cannot be read, or if
            `out` holds weights already.
    """
    files = sorted(source.glob("pytorch_model*.bin")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        what = "holds no pytorch_model*.bin" if source.is_dir() else "no such file"
        raise SaliencyError(f"{source}: {what}; give pickled weights, or the folder that holds them")
    for name in (WEIGHTS, INDEX):
        if (out / name).exists():
            raise SaliencyError(f"{out} holds a {name} already: choose another folder, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".convert-", dir=out) as folder:
        fresh = Path(folder) / WEIGHTS
        count = _in_a_process(files, fresh)
        fresh.replace(out / WEIGHTS)
    for pattern in _BESIDE:
        for path in sorted(files[0].parent.glob(pattern)):
            if not path.name.endswith(".bin.index.json") and not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)
    return count


def _in_a_process(files: Sequence[Path], fresh: Path) -> int:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_convert, args=(files, fresh, sender), daemon=True)
    process.start()
    sender.close()
    try:
        said = receiver.recv()
    except EOFError:
        process.join()
        said = f"the process that read it ended with code {process.exitcode}; is there memory enough?"
    process.join()
    if isinstance(said, str):
        raise SaliencyError(f"{', '.join(file.name for file in files)}: {said}")
    return int(said)


def _convert(files: Sequence[Path], fresh: Path, sender: Any) -> None:
    """Run in the process; return the number of tensors, or the error in one line."""
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in files:
            content = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(content, dict) or not all(
                isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
            ):
                sender.send("holds other things than tensors by name; give the state dict of a model")
                return
            # Tensors that share memory, such as tied weights, are each written completely.
            tensors |= {name: tensor.contiguous().clone() for name, tensor in content.items()}
        save_file(tensors, fresh, metadata={"format": "pt"})
    except Exception as error:  # a broken or malicious file may raise anything
        reason = one_line(error)
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
        sender.send(f"no weights could be read ({reason})")
        return
    sender.send(len(tensors))
