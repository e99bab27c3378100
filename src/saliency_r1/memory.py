"""Keeping what was computed, within a bound on memory."""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class BoundedMemory:
    """A mapping that forgets what was used longest ago once it holds more than its bytes.

    Args:
        limit: in bytes; a value larger than it is not kept at all.

    Attributes:
        bytes: of what is kept.
    """

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self._limit = limit
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What is kept under a key, or None."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, and forget others for it."""
        size = size_of(value)
        if size > self._limit:
            return
        if key in self._items:
            self.bytes -= self._items.pop(key)[1]
        self._items[key] = value, size
        self.bytes += size
        while self.bytes > self._limit:
            self.bytes -= self._items.popitem(last=False)[1][1]


def size_of(value: Any) -> int:
    """Bytes of the arrays, tensors and images in a value, however they are nested."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, list | tuple | set):
        return sum(map(size_of, value))
    if dataclasses.is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    if hasattr(value, "getbands"):  # a PIL image
        return value.width * value.height * len(value.getbands())
    if hasattr(value, "__dict__"):
        return sum(map(size_of, vars(value).values()))
    return sys.getsizeof(value)
