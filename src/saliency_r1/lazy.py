"""Public names that load on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from saliency_r1.extras import extras_named


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names are in its modules.

    Args:
        package: the package's dotted name.
        homes: the module of each name, relative to the package.

    Example:
        >>> lazy_names("saliency_r1", {"Task": "tasks"})("Task")("sod")
        <Task.SOD: 'sod'>
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with extras_named(name):
            value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # so that the next use finds it at once
        return value

    return load
