"""A run's folder: finished work survives a kill, and the final outputs appear complete and together.

Everything is written below `.unfinished` in the run's folder and moved into place at the end, `summary.json`
last. A run is finished if it has that file. The next start with the same data, predictions and options
continues the unfinished work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from saliency_r1.errors import SaliencyError
from saliency_r1.files import make_folder, write_bytes_atomic

SUMMARY = "summary.json"


class Workspace:
    """The folder of one run.

    Args:
        out: the run's folder; created if necessary.
        key: what identifies the run (see `key_of`); unfinished work of another key is deleted.
        overwrite: whether a finished run may be replaced; it stays until the new one is finished.

    Raises:
        SaliencyError: if there is a finished run that may not be replaced, or the folder cannot be written.
    """

    def __init__(self, out: str | Path, key: str, *, overwrite: bool = False) -> None:
        self.out = Path(out)
        self.folder = self.out / ".unfinished"
        refuse_finished(self.out, overwrite)
        make_folder(self.out)
        state = self.folder / "state.json"
        known = json.loads(state.read_text())["key"] if state.is_file() else None
        if known != key and self.folder.exists():
            shutil.rmtree(self.folder)
        self.goes_on = known == key
        write_bytes_atomic(state, json.dumps({"key": key}).encode())

    @property
    def predictions(self) -> Path:
        """The folder of a model's predictions until the run is finished."""
        return self.folder / "predictions"

    def save_part(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a part of the work."""
        buffer = BytesIO()
        np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
        write_bytes_atomic(self._part(name), buffer.getvalue())

    def has_part(self, name: str) -> bool:
        """Whether a part was kept."""
        return self._part(name).is_file()

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a part that was kept; None if it was not."""
        path = self._part(name)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _part(self, name: str) -> Path:
        return self.folder / "parts" / f"{name}.npz"

    def finish(self, outputs: Mapping[str, bytes]) -> None:
        """Put the outputs in place, a model's predictions too, and forget the parts.

        Args:
            outputs: content by file name, with a `summary.json`.
        """
        staged = self.folder / "outputs"
        for name, content in outputs.items():
            write_bytes_atomic(staged / name, content)
        (self.out / SUMMARY).unlink(missing_ok=True)
        if self.predictions.is_dir():
            if (self.out / "predictions").exists():
                (self.out / "predictions").rename(self.folder / "predictions-before")
            self.predictions.rename(self.out / "predictions")
        for name in sorted(outputs, key=lambda name: name == SUMMARY):
            (staged / name).replace(self.out / name)
        shutil.rmtree(self.folder)


def refuse_finished(out: str | Path, overwrite: bool) -> None:
    """Stop if the folder holds a finished run that may not be replaced.

    Raises:
        SaliencyError: if so.
    """
    if (Path(out) / SUMMARY).exists() and not overwrite:
        raise SaliencyError(f"{out}: holds a finished run; give another --out, or --overwrite to replace it")


def key_of(options: Mapping[str, Any], files: Iterable[Path | None]) -> str:
    """Return a fingerprint of options, and of files by path, size and time of change."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode())
    for path in files:
        stat = path.stat() if path is not None and path.is_file() else None
        digest.update(f"{path} {stat and stat.st_size} {stat and stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
