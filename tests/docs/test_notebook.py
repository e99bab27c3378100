"""docs/notebook.ipynb runs from top to bottom, and is stored without what it printed."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from repository import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each cell of code gave: its text, and the types of its pictures."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert list(folder.iterdir()) == []
    return [
        " ".join(
            output.get("text", "") + " ".join(output.get("data", {}))
            for output in cell["outputs"]
            if output.get("name") != "stderr"
        )
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    ]


def test_it_shows_pictures_and_words_of_each_task(executed: list[str]) -> None:
    result, words, cutout, instances, group, phrase, scores, quick = executed
    assert all("image/png" in shown for shown in (result, cutout, instances, phrase))
    assert group.count("image/png") == 2
    assert "the answer is the " in words
    assert "the object" not in words
    assert "(400, 600) float32" in cutout
    assert "cat" in group
    assert float(scores.split("IoU ")[1].split(",")[0]) > 0.6
    assert '"name": "chelsea"' in quick


def test_it_is_stored_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[] for _ in cells]
    assert [cell["execution_count"] for cell in cells] == [None for _ in cells]
