"""The names that the nano policy chooses from: classes, and the plain words for each, from narrow to wide.

A class is one thing to be told from all others: a synset of ImageNet or of a training set, or a category.
Each has a chain of words, such as "tabby", "cat", "animal". The probability of a word is the sum over the
classes below it, so that a wide word is at least as probable as each word below it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from saliency_r1.errors import SaliencyError
from saliency_r1.files import read_text, write_bytes_atomic
from saliency_r1.wording import head_of


@dataclass(frozen=True)
class NameTree:
    """Classes and the words for each.

    Attributes:
        classes: what each is known by: the number of a synset (`n02085620`), or the name of a category.
        chains: the words of each class, the narrowest first; never empty.
    """

    classes: tuple[str, ...]
    chains: tuple[tuple[str, ...], ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word, in the order in which it is first met."""
        return tuple(dict.fromkeys(word for chain in self.chains for word in chain))

    @cached_property
    def below(self) -> Mapping[str, tuple[int, ...]]:
        """The classes that each word can be said of, by their index."""
        found: dict[str, list[int]] = {}
        for index, chain in enumerate(self.chains):
            for word in chain:
                found.setdefault(word, []).append(index)
        return {word: tuple(indices) for word, indices in found.items()}

    @cached_property
    def number(self) -> Mapping[str, int]:
        """The index of each class."""
        return {name: index for index, name in enumerate(self.classes)}

    @cached_property
    def narrowest(self) -> tuple[int, ...]:
        """The number of the first word of each class's chain."""
        numbers = {word: number for number, word in enumerate(self.words)}
        return tuple(numbers[chain[0]] for chain in self.chains)

    def narrowest_of(self, classes: np.ndarray, least: float) -> str | None:
        """Return the narrowest word that is probable enough, of equally narrow ones the more probable.

        Args:
            classes: the probability of each class, float (classes,).
            least: how probable it must be.

        Returns:
            None if no word is.
        """
        numbers, starts = self._flat
        counts = np.diff(starts, append=len(numbers))
        words = np.add.reduceat(classes[numbers], starts)
        best = int(np.where(words >= least, words - counts, -np.inf).argmax())
        return self.words[best] if words[best] >= least else None

    @cached_property
    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes below each word one after the other, and where those of a word begin."""
        below = [self.below[word] for word in self.words]
        return np.concatenate([np.array(each) for each in below]), np.cumsum([0, *map(len, below[:-1])])

    def best(self, classes: np.ndarray, count: int = 5) -> list[tuple[str, float]]:
        """Return the likeliest of the narrowest words with their probabilities, the likeliest first.

        Args:
            classes: the probability of each class, float (classes,).
            count: how many.
        """
        likely = np.bincount(self.narrowest, classes, len(self.words))
        return [
            (self.words[number], round(float(likely[number]), 4))
            for number in np.argsort(-likely, kind="stable")[:count]
        ]

    def probability(self, expression: str, classes: np.ndarray) -> float | None:
        """Return how probable it is that an expression names its thing rightly, in [0, 1].

        The longest word of the tree with which its head ends counts, in the singular or a plain plural.

        Args:
            expression: such as "the polar bears on the left".
            classes: the probability of each class, float (classes,).

        Returns:
            None if the tree has no such word.
        """
        head = head_of(expression).split()
        for start in range(len(head)):
            phrase = " ".join(head[start:])
            for word in (phrase, phrase.removesuffix("s"), phrase.removesuffix("es")):
                if word in self.below:
                    return min(1.0, float(classes[list(self.below[word])].sum()))
        return None

    def meant(self, label: str) -> tuple[int, ...]:
        """The classes that a label may mean.

        Args:
            label: the number of a synset, which means its own class, or a word, which means its own class
                and all others that it can be said of.
        """
        own = (self.number[label],) if label in self.number else ()
        return tuple(dict.fromkeys((*own, *self.below.get(self._word_of(label), ()))))

    def _word_of(self, label: str) -> str:
        """The word of a category that goes by another name ("couch", a sofa); else the label."""
        known = label in self.number and not label[1:].isdigit()
        return self.chains[self.number[label]][0] if known else label

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"classes": list(self.classes), "chains": [list(chain) for chain in self.chains]}

    def save(self, path: str | Path) -> None:
        """Write it as JSON, in one step."""
        write_bytes_atomic(Path(path), json.dumps(self.to_dict(), indent=0).encode())

    @classmethod
    def load(cls, path: str | Path) -> NameTree:
        """Read what `save` wrote.

        Raises:
            SaliencyError: if the file cannot be read so.
        """
        try:
            return cls.from_dict(json.loads(read_text(path)))
        except (ValueError, KeyError, TypeError) as error:
            raise SaliencyError(
                f"{path} holds no names, expected lists `classes` and `chains` ({error!r}): make the file "
                "with `saliency-r1 data names`"
            ) from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NameTree:
        """Make a tree from what `to_dict` gave."""
        return cls(tuple(values["classes"]), tuple(tuple(chain) for chain in values["chains"]))
