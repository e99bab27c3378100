"""The sources of the names that texts are written with and that the nano policy reads."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from saliency_r1 import nano
from saliency_r1.data.layouts import load_splits
from saliency_r1.language.imagenet import imagenet_synsets
from saliency_r1.language.tree_names import tree_of
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.scenes.instance_photos import category_names, category_nouns

_WORDNET = re.compile(r"n\d{8}")


def embedded_tree() -> NameTree:
    """The names that the embedded policy reads."""
    config = json.loads((nano.POLICY_FOLDER / "config.json").read_text())
    return NameTree.from_dict(config.get("name_tree") or {"classes": [], "chains": []})


def make_tree(imagenet: str | Path | None, data: str | Path | None, photos: Sequence[Path]) -> NameTree:
    """The names of ImageNet's classes, of the synsets of photos, and of categories.

    Args:
        imagenet: `imagenet1k.json`; None to extend the names of the embedded policy.
        data: a DUTS folder, or photos and masks with a synsets.json.
        photos: folders of COCO json sets.

    Raises:
        SaliencyError: if one of them cannot be read.
    """
    synsets = {} if imagenet is None else {one.id: one for one in imagenet_synsets(imagenet).values()}
    if data is not None:
        for sample in (sample for split in load_splits(data) for sample in split):
            if sample.synset is not None:
                synsets.setdefault(sample.synset.id, sample.synset)
    nouns = [category_nouns(name) for name in category_names(photos)]
    made = tree_of(synsets.values(), [((*each.names, *each.synonyms), each.hypernyms) for each in nouns])
    own = [name for name in synsets if not _WORDNET.fullmatch(name)]
    return made if imagenet is not None else extended(embedded_tree(), made, own)


def extended(tree: NameTree, other: NameTree, renamed: Collection[str] = ()) -> NameTree:
    """A tree with the classes of another one behind its own.

    Args:
        tree: its classes keep their words.
        other: the other tree.
        renamed: classes whose words are those of `other` if that calls them by another narrowest word: who
            names photos of dogs "Rex" means that name.
    """
    chains = dict(zip(tree.classes, tree.chains, strict=True))
    for name, chain in zip(other.classes, other.chains, strict=True):
        if name not in chains or (name in renamed and chain[0] != chains[name][0]):
            chains[name] = chain
    return NameTree(tuple(chains), tuple(chains.values()))
