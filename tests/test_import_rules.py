"""The rules of imports: every room imports from floors below its own, and no module leads back to itself.

Imports inside functions and those for types count too. No room is crowded.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from repository import ROOT

PACKAGE = ROOT / "src" / "saliency_r1"
FLOORS = (
    {"cli"},
    {"__init__"},
    {"batch", "serving", "sharing"},
    {"training"},
    {"evaluation", "writing"},
    {"pipeline"},
    {"rewards"},
    {"policy", "segmenters"},
    {"scenes"},
    {"language"},
    {"data", "nano"},
)
"""The rooms from the top down. Every other module is on the ground floor."""
ROOM_OF = {"__main__": "cli", "cosod": "pipeline", "cosod_path": "pipeline", "sis": "pipeline"}
"""Modules that belong to a room by their work."""
MOST_FILES = 16
"""The Python files of one folder, the root of the package excepted."""


def modules() -> dict[str, str]:
    """The source of each module by its dotted name within the package; the package itself is `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = (
            path.read_text()
        )
    return found


def imports() -> dict[str, set[str]]:
    """The modules that each module imports."""
    sources = modules()
    found: dict[str, set[str]] = {name: set() for name in sources}
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}: import by the full name"
                places = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                places = [each.name for each in node.names]
            else:
                continue
            for place in places:
                if place.partition(".")[0] == "saliency_r1":
                    inside = place.partition(".")[2]
                    target = inside if inside in sources else inside.rpartition(".")[0]
                    found[name].add(target if target in sources else "__init__")
    return found


IMPORTS = imports()


def room(module: str) -> str:
    name = module.partition(".")[0]
    return ROOM_OF.get(name, name)


def floor(module: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room(module) in rooms), len(FLOORS))


@pytest.mark.parametrize("name", sorted({room(module) for module in IMPORTS}))
def test_a_room_imports_from_floors_below_its_own(name: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if room(module) == name
        for target in sorted(targets)
        if room(target) != name
        and (floor(target) < floor(module) or floor(target) == floor(module) < len(FLOORS))
    ]
    assert not wrong


def test_policies_and_segmenters_do_not_know_of_each_other() -> None:
    for start, forbidden in (("policy", "segmenters"), ("segmenters", "policy")):
        reached = {module for module in IMPORTS if room(module) == start}
        todo = list(reached)
        while todo:
            new = IMPORTS[todo.pop()] - reached
            reached |= new
            todo += new
        assert not {module for module in reached if room(module) == forbidden}


def test_no_module_leads_back_to_itself() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_room_has_more_files_than_one_can_look_through() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}
    counts = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > MOST_FILES}


def test_the_table_of_contributing_names_every_room() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {f"`{path.parent.name}/`" for path in PACKAGE.glob("*/__init__.py")}
    files = {f"`{path.name}`" for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert not {name for name in rooms | files if name not in table}
