"""Cache computed values within a limit of memory."""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class BoundedMemory:
    """A mapping with a limit of bytes that forgets the least recently used values.

    Args:
        limit: limit in bytes; a larger value is not kept.

    Attributes:
        bytes: bytes of the kept values.
    """

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        self._limit = limit
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """Return the value of a key, or None."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, and forget others to make room."""
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
    """Return the bytes of all arrays, tensors and images in a nested value."""
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
