"""Checkpoints of transformers' Trainer that can be trusted after a kill.

The Trainer writes a checkpoint file by file. Each one gets a list of its files and their sizes as its last
file, so a checkpoint without the list, or with files that do not fit it, was cut off and is never resumed
from.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic

COMPLETE = "complete.json"
_PREFIX = "checkpoint-"

_log = logging.getLogger(__name__)


def mark_complete(checkpoint: Path) -> None:
    """Say that all files of a checkpoint are written."""
    write_bytes_atomic(checkpoint / COMPLETE, json.dumps(_sizes(checkpoint), indent=1).encode())


def is_complete(checkpoint: Path) -> bool:
    """Whether every file is there with the size that it had."""
    try:
        return json.loads((checkpoint / COMPLETE).read_text()) == _sizes(checkpoint)
    except (OSError, ValueError):
        return False


def checkpoint_to_resume(output: Path, resume: bool) -> Path | None:
    """The newest whole checkpoint of a run folder, None to start anew; cut-off ones are deleted.

    Raises:
        SaliencyError: if the run has checkpoints and `resume` is False.
    """
    found = sorted(output.glob(f"{_PREFIX}*"), key=step_of)
    if found and not resume:
        raise SaliencyError(f"{output} holds a run already: go on with --resume, or choose another output")
    for checkpoint in reversed(found):
        if is_complete(checkpoint):
            return checkpoint
        _log.warning("%s was cut off: deleted", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdigit() else -1


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE)
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
