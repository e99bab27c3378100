"""Every shell and Python block of the README and of docs/ is run here, or says above it what it needs.

`<!-- needs: a GPU -->` above a block keeps it from being run, `<!-- shortened: max_steps=2 -->` adds these
words to its `saliency-r1 train` commands, `<!-- writes: mine/synsets.json -->` makes it that file's
content. Of all blocks, run or not, each command and option of ours must exist, each recipe and its keys, each
benchmark and its options, each extra of pip, each name imported.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from drawn_data import save
from saliency_r1.cli import app, main
from saliency_r1.segmenters.load_segmenter import load_segmenter
from saliency_r1.training.config import load_recipe, read_values

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL, PYTHON = ("bash", "shell", "sh", "console"), ("python", "py", "pycon")
BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n+)*)^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RUN_BY_CI = re.findall(r"^(?:demo|tests)='(.*)'$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    needs: str | None
    shortened: tuple[str, ...]
    file: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.needs is None and self.text.strip() not in RUN_BY_CI


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        comments, indent, language, body = match.groups()
        needs = re.search(r"<!-- needs: (.+?) -->", comments)
        shortened = re.search(r"<!-- shortened: (.+?) -->", comments)
        line = text.count("\n", 0, match.end(1)) + 1
        body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        words = tuple(shlex.split(shortened[1])) if shortened else ()
        file = re.search(r"<!-- writes: (.+?) -->", comments)
        found.append(
            Block(page, line, language, body, needs[1] if needs else None, words, file[1] if file else None)
        )
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_language(languages: tuple[str, ...]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def lines_of(block: Block) -> list[str]:
    """The command lines of a shell block, whole and without comments."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    bare = (re.sub(r"(^|\s+)#(\s.*)?$", "", line).strip() for line in lines)
    return [line for line in bare if line]


def commands_of(line: str) -> list[list[str]]:
    """The words of each command of a line, split at pipes and the like; `>` and `<` are words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def ours(words: list[str]) -> list[str] | None:
    """What a command gives to `saliency-r1`, however that is started; None if it does not."""
    if words[0] == "saliency-r1":
        return words[1:]
    if "saliency_r1" in words and words[words.index("saliency_r1") - 1] == "-m":
        return words[words.index("saliency_r1") + 1 :]
    return None


def parse(arguments: list[str]) -> dict[str, Any]:
    """The parameters of the command that the arguments name, which is not run; its path as `command`."""
    command: Any = typer.main.get_command(app)
    context: Any = command.make_context("saliency-r1", list(arguments))
    while hasattr(command, "resolve_command"):
        words = [*context._protected_args, *context.args]
        if not words and command.invoke_without_command:
            break
        name, command, rest = command.resolve_command(context, words)
        context = command.make_context(name, rest, parent=context)
    return {"command": context.command_path, **context.params}


def check_recipe(stage: str, config: Path, overrides: list[str]) -> None:
    from saliency_r1.training.fine_tuning.large import LargeSFTRecipe
    from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
    from saliency_r1.training.reinforcement.train import CGPORecipe, GRPORecipe
    from saliency_r1.training.segmenter.recipe import SegmenterRecipe

    large = "policy" in read_values(config, overrides)
    kinds: dict[str, type] = {
        "sft": LargeSFTRecipe if large else SFTRecipe,
        "segmenter": SegmenterRecipe,
        "cgpo": CGPORecipe,
        "grpo": GRPORecipe,
    }
    load_recipe(config, kinds[stage], overrides)


def check_command(words: list[str]) -> None:
    words = list(itertools.takewhile(lambda word: not set(word) <= set("<>"), words))
    arguments = ours(words)
    if arguments is not None:
        with contextlib.suppress(typer.Exit):  # --help and --version
            found = parse(arguments)
            _, _, stage = found["command"].partition(" train ")
            if stage:
                check_recipe(stage, ROOT / found["config"], found["overrides"] or [])
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        script = (ROOT / words[1]).read_text()
        for option in (word for word in words[2:] if word.startswith("--")):
            assert f'"{option}"' in script, f"{words[1]} has no {option}"
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in words[2:]:
            named = re.fullmatch(r"(?:\.|saliency-r1)\[(.+)\]", word)
            assert named is None or set(named[1].split(",")) <= set(extras), word


def test_the_pages_have_blocks_of_known_languages() -> None:
    known = {*SHELL, *PYTHON, "json", "yaml", "text", "dockerfile", ""}
    assert [block.place for block in BLOCKS if block.language not in known] == []
    fences = sum(len(re.findall(r"^ *```\w", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert sum(bool(block.language) for block in BLOCKS) == fences
    assert sum(block.is_run for block in BLOCKS if block.language in SHELL) >= 5
    assert sum(block.is_run for block in BLOCKS if block.language in PYTHON) >= 5


@pytest.mark.parametrize("block", of_language(SHELL))
def test_what_a_shell_block_names_exists(block: Block) -> None:
    lines = lines_of(block)
    assert lines
    for line in lines:
        for words in commands_of(line):
            check_command(words)


def test_what_does_not_exist_is_found() -> None:
    for line in (
        "saliency-r1 predict --nonsense dog.jpg",
        "saliency-r1 forget dog.jpg",
        "saliency-r1 train cgpo --config recipes/nano/cgpo.yaml learning=1",
        "accelerate launch -m saliency_r1 train cgpo --config recipes/nano/nothing.yaml",
        "python benchmarks/nano.py --nonsense 3",
        'pip install -c constraints.txt ".[nonsense]"',
    ):
        with pytest.raises(BaseException, match=r"nonsense|forget|learning|nothing"):
            check_command(commands_of(line)[0])


@pytest.mark.parametrize("block", of_language(PYTHON))
def test_what_a_python_block_imports_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("saliency_r1"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


@pytest.fixture(scope="module")
def sample_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos under the names that the pages use, a folder of pairs, and the recipes."""
    folder = tmp_path_factory.mktemp("photos")
    photos = {
        "dog.jpg": "chelsea.png",
        "street.jpg": "astronaut.png",
        "a.jpg": "motorcycle_left.png",
        "b.jpg": "motorcycle_right.png",
        "holiday/rocket.jpg": "rocket.jpg",
        "holiday/2025/coffee.jpg": "coffee.png",
        "scans/chelsea.png": "chelsea.png",
        "album/1.jpg": "motorcycle_left.png",
        "album/2.jpg": "motorcycle_right.png",
    }
    for name, source in photos.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(str(files("skimage.data") / source)) as photo:
            photo.convert("RGB").resize((240, 160)).save(folder / name)
    draw_pairs_of_photos(folder / "mine")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    return folder


def draw_pairs_of_photos(folder: Path) -> None:
    """Parts of photos, each with the mask that the embedded segmenter finds in it."""
    segmenter = load_segmenter(None)
    for source, kind in (("coffee.png", "mug"), ("chelsea.png", "cat")):
        with Image.open(str(files("skimage.data") / source)) as opened:
            photo = opened.convert("RGB").resize((225, 150))
        for number in range(6):
            part = photo.crop((4 * number, 2 * number, 200 + 4 * number, 136 + 2 * number))
            mask = segmenter.segment(segmenter.encode(part), ["the object"]).probabilities[0] >= 0.5
            name = f"{kind}_{number + 1:02d}"
            save(part, folder / "images" / f"{name}.jpg")
            save(Image.fromarray(mask).convert("L"), folder / "masks" / f"{name}.png")


def run_shell(block: Block) -> None:
    for line in lines_of(block):
        commands = commands_of(line)
        arguments = ours(commands[0])
        if len(commands) > 1 or arguments is None or {">", "<"} & {*arguments}:
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                capture_output=True,
                text=True,
                timeout=120,
                env=environment,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            continue
        if arguments[:1] == ["train"]:
            arguments += block.shortened
        assert main(arguments) == 0, line


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))


RUN_PAGES = list({block.page: None for block in BLOCKS if block.is_run and block.language in SHELL + PYTHON})


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in RUN_PAGES])
def test_the_blocks_of_a_page_run(page: Path, sample_photos: Path, tmp_path: Path) -> None:
    """In one folder and one Python session, in the order of the page."""
    folder = tmp_path / "here"
    shutil.copytree(sample_photos, folder)
    session: dict[str, Any] = {"__name__": "__main__"}
    with importable(folder):
        for block in blocks_of(page):
            if not block.is_run:
                continue
            if block.file is not None:
                Path(block.file).write_text(block.text, encoding="utf-8")
            elif block.language in SHELL:
                run_shell(block)
            elif block.language in PYTHON:
                exec(compile(block.text, block.place, "exec"), session)
