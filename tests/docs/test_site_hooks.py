"""What the documentation site does beyond mkdocs: its links, the page of commands, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from repository import module_at
from saliency_r1.cli import COMMANDS


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    return module_at("docs/site_hooks.py")


def test_every_command_and_option_is_on_the_page(hooks: ModuleType) -> None:
    page = "\n".join(hooks.command_lines())
    for command in COMMANDS:
        assert f"## saliency-r1 {command}\n" in page
    for command in ("train cgpo", "data prompts", "evaluate sis"):
        assert f"### saliency-r1 {command}\n" in page
    assert "| `--task <sod|sis|cosod>` |" in page
    assert "130 interrupted" in page
    assert "--install-completion" not in page


@pytest.mark.parametrize(
    ("source", "written", "led"),
    [
        ("docs/cgpo.md", "[r](../benchmarks/RESULTS.md#time)", "[r](results/details.md#time)"),
        ("docs/results/speed.md", "[r](../../benchmarks/RESULTS.md)", "[r](details.md)"),
        (
            "docs/results/speed.md",
            "[t](../tasks.md) ![c](../images/demo.jpg)",
            "[t](../tasks.md) ![c](../images/demo.jpg)",
        ),
        ("docs/tasks.md", "[s](results/speed.md#time)", "[s](results/speed.md#time)"),
        ("benchmarks/RESULTS.md", "![c](../docs/images/demo.jpg)", "![c](../images/demo.jpg)"),
        ("docs/start.md", "[c](../recipes/nano/cgpo.yaml)", "c"),
        ("docs/start.md", "[a](https://arxiv.org/abs/2511.00396)", "[a](https://arxiv.org/abs/2511.00396)"),
        ("docs/start.md", "[t](#here) [t](tasks.md#x)", "[t](#here) [t](tasks.md#x)"),
        (
            "docs/start.md",
            "```\n[r](../benchmarks/RESULTS.md)\n```",
            "```\n[r](../benchmarks/RESULTS.md)\n```",
        ),
    ],
)
def test_links_of_the_repository_lead_to_pages(
    hooks: ModuleType, source: str, written: str, led: str
) -> None:
    assert hooks.links_to_pages(written, source) == led


def test_a_link_to_nothing_stops_the_build(hooks: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"there is no benchmarks/OTHER\.md"):
        hooks.links_to_pages("[r](../benchmarks/OTHER.md)", "docs/cgpo.md")


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css?family=Roboto">',
        "<img alt=x src=//example.org/x.png>",
        "<style>@import url(https://example.org/x.css)</style>",
        "<div style=\"background: url('https://example.org/x.png')\">",
        '<pre class="mermaid">',
    ],
)
def test_a_page_that_fetches_from_elsewhere_is_found(hooks: ModuleType, html: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<body>{html}</body>")
    assert len(hooks.foreign_fetches(tmp_path)) == 1


def test_links_and_own_files_are_no_fetches(hooks: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<link rel="canonical" href="https://example.org/"><a href="https://example.org/">x</a>'
        '<script src="x.js"></script><img src="images/demo.jpg">'
    )
    assert hooks.foreign_fetches(tmp_path) == []
