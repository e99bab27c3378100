"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from repository import ROOT

PACKAGE = ROOT / "src" / "saliency_r1"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not found.failed


def test_every_public_reward_has_an_example_that_runs() -> None:
    from saliency_r1 import rewards

    finder = doctest.DocTestFinder(recurse=False)
    for name in rewards.__all__:
        examples = [one for test in finder.find(getattr(rewards, name), name) for one in test.examples]
        assert any(not one.options.get(doctest.SKIP) for one in examples), f"{name} has no example that runs"
