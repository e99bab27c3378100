"""The plan of memory and time: the documentation shows what the script prints."""

from __future__ import annotations

import pytest

from repository import ROOT, module_at


def test_the_documentation_has_every_line_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    module_at("benchmarks/large_plan.py").main()
    page = (ROOT / "docs" / "large-training.md").read_text()
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) > 30
    assert [line for line in lines if line not in page] == []
