"""Docstrings and pages begin as sentences do; the worst habits of wording do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repository import ROOT

SOURCE = ROOT / "src" / "saliency_r1"
FRAGMENT = re.compile(r"(Of|That|Told|Behind|From|With|By|Beside|To be|All of it|The same|What|Where|How)\b")
ATTRIBUTE = re.compile(r"^\s+[\w, ]+: (of|told|from|with|beside|over) ", re.MULTILINE)
HABITS = re.compile(r"\bat hand\b|\bturn about\b|\banew\b|\bmend\b|\bfor nothing\b|\bgoes on\b")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string that stands alone: docstrings, also those of constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def test_docstrings_are_sentences_or_noun_phrases() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, text in docstrings(path)
        if FRAGMENT.match(text) or ATTRIBUTE.search(text) or HABITS.search(text)
    ]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_free_of_the_worst_habits(page: Path) -> None:
    assert HABITS.findall(page.read_text(encoding="utf-8")) == []


def test_the_habits_are_found() -> None:
    assert FRAGMENT.match("Of the photos, the best.")
    assert ATTRIBUTE.search("Args:\n    seed: of the draws.")
    assert HABITS.search("No GPU was at hand.")
    assert not FRAGMENT.match("Offer a mask.")
