"""Names of saved files: within one process no two photos get the same name."""

from __future__ import annotations

import os
import threading
from pathlib import Path

# Only hashes, so that a million photos take little memory.
_taken: set[int] = set()
_numbers: dict[tuple[int, int], int] = {}
_last: dict[int, int] = {}
_lock = threading.Lock()


def claim_name(base: Path, photo: object) -> Path:
    """Return a path for a photo's files that no other photo has: `base`, or `base-2`, `base-3`, ….

    Args:
        base: folder and stem.
        photo: a hashable value that identifies the photo. The same photo gets the same path again.
    """
    key = _key(base)
    asked = key, hash(photo)
    with _lock:
        while asked not in _numbers:
            number = _last[key] = _last.get(key, 0) + 1
            path = _key(_numbered(base, number))
            if path not in _taken:
                _taken.add(path)
                _numbers[asked] = number
        return _numbered(base, _numbers[asked])


def _numbered(base: Path, number: int) -> Path:
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def _key(path: Path) -> int:
    return hash(os.path.abspath(path).casefold())  # noqa: PTH100  # resolve() follows links, and asks the disk
