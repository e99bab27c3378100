"""The thousand classes of ImageNet as nouns: more words for a segmenter than its photos have names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from saliency_r1.data.samples import Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.expressions import Nouns
from saliency_r1.language.naming import NameBook


def imagenet_synsets(path: str | Path) -> Mapping[int, Synset]:
    """Read the synsets of ImageNet-1k.

    Args:
        path: json, a list of objects with `index` (0 to 999), `synset`, `name`, `synonyms` and `hypernyms`.

    Returns:
        The synset of each class by its index in the classifier's output.

    Raises:
        SaliencyError: if the file cannot be read so.
    """
    try:
        rows = json.loads(Path(path).read_text())
        return {
            int(row["index"]): Synset(
                row["synset"], row["name"], tuple(row["synonyms"]), tuple(row["hypernyms"])
            )
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaliencyError(
            f"{path} is no list of ImageNet's classes (index, synset, name, synonyms, hypernyms): {error}"
        ) from None


def imagenet_classes(path: str | Path) -> Mapping[int, Nouns]:
    """The nouns of each class of ImageNet-1k, by its index; see `imagenet_synsets`."""
    synsets = imagenet_synsets(path)
    book = NameBook(dict.fromkeys(synsets.values(), 1), minimum=1)
    return {index: Nouns.of(synset, book) for index, synset in synsets.items()}
