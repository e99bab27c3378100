"""The samples of a data set: a picture, its mask, and the WordNet synset that it was collected under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from saliency_r1.errors import SaliencyError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Synset:
    """A WordNet synset.

    Attributes:
        id: its WordNet number, such as `n02084071`.
        name: its first lemma, as WordNet writes it (`Granny Smith`).
        synonyms: its other lemmas.
        hypernyms: the first lemma of each hypernym, from the nearest up to `entity`.

    Raises:
        SaliencyError: if the id or the name is empty, or a text is given for a sequence of words.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    hypernyms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.id or not self.name.strip():
            raise SaliencyError(f"a synset needs an id and a name: got id {self.id!r}, name {self.name!r}")
        if any(isinstance(words, str) for words in (self.synonyms, self.hypernyms)):
            raise SaliencyError(
                f"synset {self.id}: synonyms and hypernyms are sequences of words, not one text"
            )
        object.__setattr__(self, "synonyms", tuple(self.synonyms))
        object.__setattr__(self, "hypernyms", tuple(self.hypernyms))


@dataclass(frozen=True)
class Sample:
    """One picture of a data set, not yet read.

    Attributes:
        name: unique in its data set; the file's stem.
        image: path of the picture.
        mask: path of the ground truth; None where there is none.
        synset: the synset that the picture was collected under; None if unknown.

    Raises:
        SaliencyError: if the name is empty.
    """

    name: str
    image: Path
    mask: Path | None = None
    synset: Synset | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SaliencyError(f"a sample needs a name: got none for {self.image}")
        object.__setattr__(self, "image", Path(self.image))
        if self.mask is not None:
            object.__setattr__(self, "mask", Path(self.mask))


def spread(examples: Sequence[_T], count: int | None) -> list[_T]:
    """Choose `count` of the examples, evenly spread over all; None or too large a count chooses all."""
    count = len(examples) if count is None else min(count, len(examples))
    return [examples[index * len(examples) // count] for index in range(count)]
