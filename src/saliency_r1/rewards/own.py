"""Load a user's rewards, which a recipe names by their Python path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from saliency_r1.errors import SaliencyError, one_line

RewardFunction = Callable[..., Sequence[float | None]]
"""`function(completions, task, example, images)`, see `SaliencyReward` and docs/training.md."""


def load_reward(path: str) -> RewardFunction:
    """Load the function that a Python path names.

    Args:
        path: `package.module:function`, or `folder/file.py:function`.

    Raises:
        SaliencyError: if there is no such module, file or function.

    Example:
        >>> load_reward("saliency_r1.rewards:faithful").__name__
        'faithful'
    """
    place, separator, name = path.rpartition(":")
    if not separator or not place or not name:
        raise SaliencyError(f"reward {path!r}: expected package.module:function or file.py:function")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:  # a user's module may raise anything
        reason = one_line(error)
        raise SaliencyError(f"reward {path!r}: {place} cannot be imported ({reason})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise SaliencyError(f"reward {path!r}: {place} has no function {name!r}")
    return function


def _load_file(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    name = f"saliency_r1_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its dataclasses and pickling find their module
    spec.loader.exec_module(module)
    return module
