"""The names that texts are written with: those of the embedded policy, and those of one's own photos."""

from __future__ import annotations

import json
from pathlib import Path

from drawn_data import draw_pairs
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.writing.name_sources import embedded_tree, extended, make_tree


def test_names_of_ones_own_are_added_and_rename_what_is_known(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 4)
    for number, prefix in enumerate(("dog", "dog", "mine", "cat")):
        for folder, suffix in (("images", "jpg"), ("masks", "png")):
            path = tmp_path / folder / f"{number:04d}.{suffix}"
            path.rename(path.with_name(f"{prefix}_{number}.{suffix}"))
    names = {
        "dog": {"name": "wozzle", "synonyms": [], "hypernyms": ["animal"]},
        "mine": {"name": "gizmo", "synonyms": [], "hypernyms": []},
        "cat": {"name": "cat", "synonyms": [], "hypernyms": []},
    }
    (tmp_path / "synsets.json").write_text(json.dumps(names))
    before, tree = embedded_tree(), make_tree(None, tmp_path, ())
    assert tree.classes == (*before.classes, "mine")
    assert tree.chains[tree.number["mine"]] == ("gizmo",)
    assert tree.chains[tree.number["dog"]] == ("wozzle", "animal")
    assert tree.chains[tree.number["cat"]] == before.chains[before.number["cat"]]
    assert "dog" in tree.below  # its breeds are still dogs


def test_only_what_is_to_be_renamed_gets_other_words() -> None:
    tree, other = NameTree(("a", "b"), (("x",), ("y",))), NameTree(("b", "c"), (("z",), ("w",)))
    assert extended(tree, other).chains == (("x",), ("y",), ("w",))
    assert extended(tree, other, ["b"]).chains == (("x",), ("z",), ("w",))
