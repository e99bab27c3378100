"""One truth: recipe headers, the README and docs/ name the commands that recipes/nano/run.sh runs."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from repository import ROOT

RUN = ROOT / "recipes" / "nano" / "run.sh"
NANO = sorted((ROOT / "recipes" / "nano").glob("*.yaml"))
OTHERS = {
    "own-photos": ROOT / "docs" / "own-photos.md",
    "qwen2.5-vl-3b": ROOT / "docs" / "large-training.md",
    "qwen2.5-vl-7b": ROOT / "docs" / "large-training.md",
}
STARTED = re.compile(r"[#\s]*(?:saliency-r1|(?:accelerate|torchrun) .*-m saliency_r1) (data|train) ")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[tuple[str, ...]]:
    """The words of every `saliency-r1 data` and `train` command, however it is started, without overrides."""
    found = []
    joined = re.sub(r"\\\n#?\s*", " ", text)
    for line in joined.splitlines():
        match = STARTED.match(line)
        if match:
            words = shlex.split(line[match.start(1) :], comments=True)
            found.append(tuple(word for word in words if word != "--resume" and not re.match(r"\w+=", word)))
    return found


def header(recipe: Path) -> str:
    return "\n".join(line for line in recipe.read_text().splitlines() if line.startswith("#"))


RUN_COMMANDS = commands(RUN.read_text())
STAGES = re.findall(r"^(\w+)\(\) \{", RUN.read_text(), re.MULTILINE)


@pytest.mark.parametrize("recipe", NANO, ids=lambda path: path.stem)
def test_the_header_of_a_nano_recipe_names_commands_of_the_script(recipe: Path) -> None:
    named = commands(header(recipe))
    assert any(recipe.name in word for words in named for word in words), "the header names its own command"
    assert not [words for words in named if words not in RUN_COMMANDS]
    asked = re.search(r"bash recipes/nano/run\.sh (.+)", header(recipe))
    assert asked
    assert set(asked[1].split()) <= set(STAGES)


def test_every_nano_recipe_is_a_stage_of_the_script() -> None:
    used = {word for words in RUN_COMMANDS for word in words if word.endswith(".yaml")}
    assert used == {str(path.relative_to(ROOT)) for path in NANO}


@pytest.mark.parametrize(
    "recipe",
    [recipe for folder in OTHERS for recipe in sorted((ROOT / "recipes" / folder).glob("*.yaml"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_header_of_another_recipe_names_commands_of_its_page(recipe: Path) -> None:
    known = commands(OTHERS[recipe.parent.name].read_text())
    assert not [words for words in commands(header(recipe)) if words[0] == "data" and words not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_names_stages_that_are_there_and_makes_no_data_of_its_own(page: Path) -> None:
    text = page.read_text()
    for asked in re.findall(r"^bash recipes/nano/run\.sh ?([\w ]*)", text, re.MULTILINE):
        assert set(asked.split()) <= set(STAGES), asked
    made = [words for words in commands(text) if words[0] == "data" and "../shared/data/DUTS" in words]
    assert not [words for words in made if words not in RUN_COMMANDS]


def test_the_script_is_sound_and_refuses_what_is_no_stage() -> None:
    assert subprocess.run(["bash", "-n", str(RUN)], capture_output=True).returncode == 0
    done = subprocess.run(["bash", str(RUN), "nonsense"], capture_output=True, text=True)
    assert (done.returncode, "no such stage" in done.stderr) == (2, True)
