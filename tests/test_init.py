from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import saliency_r1


def test_the_import_is_light() -> None:
    code = (
        "import sys, saliency_r1; saliency_r1.SaliencyError; saliency_r1.__version__;"
        "print(*{'torch', 'transformers', 'skimage', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_are_there() -> None:
    from saliency_r1 import Instance, Response, SaliencyResult, Task, load_image, parse_lenient, parse_strict

    assert parse_strict(Response("why", ("dog",), "rg").text, Task.SOD) == parse_lenient("why<rg>dog", "sod")
    assert callable(load_image)
    assert Instance.__module__ == SaliencyResult.__module__ == "saliency_r1.result"
    assert saliency_r1.__version__ == version("saliency-r1")


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    code = "import saliency_r1; saliency_r1.SaliencyError; print(*dir(saliency_r1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert sorted(saliency_r1.__all__) == sorted(names)
    assert {"SaliencyPipeline", "load_segmenter", "evaluate", "compare"} <= set(names)
    assert not {"TYPE_CHECKING", "annotations", "lazy_names", "errors"} & set(names)


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Saliency'"):
        _ = saliency_r1.Saliency


def test_every_public_name_loads() -> None:
    for name in saliency_r1.__all__:
        assert getattr(saliency_r1, name) is not None
    assert saliency_r1.CGPOTrainer.__module__ == "saliency_r1.training.reinforcement.cgpo"
    assert saliency_r1.Policy.__module__ == "saliency_r1.policy.base"
