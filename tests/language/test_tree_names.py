"""Plain words for synsets and categories, from narrow to wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.tree_names import TreeNames, tree_of, words_of
from saliency_r1.nano.name_tree import NameTree

TABBY = Synset("n1", "tabby", (), ("domestic cat", "cat", "feline", "carnivore", "animal"))
LYNX = Synset("n2", "lynx", (), ("wildcat", "cat", "feline", "carnivore", "animal"))
MUG = Synset("n3", "coffee mug", (), ("mug", "drinking vessel", "container", "entity"))


def test_words_go_from_narrow_to_wide() -> None:
    assert words_of(TABBY) == ("tabby", "cat", "animal")
    assert words_of(MUG) == ("mug", "cup", "container")
    assert words_of(Synset("n4", "ballplayer", (), ("player", "person"))) == ("baseball player", "person")
    assert words_of(Synset("n5", "Shih-Tzu", (), ("toy dog", "dog", "animal"))) == ("dog", "animal")


def test_a_category_is_a_class_beside_those_that_its_name_can_be_said_of() -> None:
    tree = tree_of([TABBY, LYNX, MUG], [(("cat",), ("animal",)), (("couch", "sofa"), ("furniture",))])
    assert tree.chains[tree.number["cat"]] == ("cat", "animal")
    assert set(tree.meant("cat")) == {tree.number[name] for name in ("cat", "n1", "n2")}
    assert tree.meant("n1") == (tree.number["n1"],)
    assert tree.meant("n99") == ()
    assert tree.below["animal"] == (0, 1, 3)


def test_a_synset_means_its_own_class_and_a_word_all_below_it() -> None:
    cat = Synset("n9", "cat", (), ("feline", "carnivore", "animal"))
    tree = tree_of([TABBY, LYNX, cat], [(("kitty", "cat"), ())])
    assert tree.meant("n9") == (2,)
    assert set(tree.meant("cat")) == set(tree.meant("kitty")) == {0, 1, 2, 3}


def test_names_for_texts() -> None:
    names = TreeNames(tree_of([TABBY, LYNX], [(("cat",), ("animal",))]))
    assert names.name(TABBY) == "tabby"
    assert names.rewordings(TABBY) == (None, "cat", "object")
    assert names.of_category("kitten", "cat") == ("cat", "animal")
    assert names.of_category("spoon") == ()
    assert names.name(MUG) == "object"  # no word of the tree


def test_a_tree_is_saved_and_read(tmp_path: Path) -> None:
    tree = tree_of([TABBY, MUG])
    tree.save(tmp_path / "names.json")
    assert NameTree.load(tmp_path / "names.json") == tree
    (tmp_path / "names.json").write_text("[]")
    with pytest.raises(SaliencyError, match="holds no names"):
        NameTree.load(tmp_path / "names.json")
