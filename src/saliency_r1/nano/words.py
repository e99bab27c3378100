"""The word list of the nano segmenter: text to word numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> list[str]:
    """The lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())


def salient_text(expression: str) -> str:
    """Return how the network is asked for what stands out of what an expression names.

    It was trained on "the most salient object" and on names, and finds the salient object better if it is
    told both. What the photo lacks is then found too, so this is for answers to the question of SOD alone.

    Example:
        >>> salient_text("the dog on the left"), salient_text("what stands out")
        ('the most salient dog on the left', 'what stands out')
    """
    rest = expression.removeprefix("the ")
    return expression if rest == expression or "salient" in rest else f"the most salient {rest}"


class WordList:
    """A fixed vocabulary of whole words.

    A word that is not in it is tried without its plural ending, then becomes `UNKNOWN`, which the segmenter
    was trained to read as "some object": whatever is salient, at the place that the other words give.

    Args:
        words: the vocabulary; its numbers start at 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._numbers = {word: number for number, word in enumerate(self.words, start=2)}

    def __len__(self) -> int:
        return len(self.words) + 2

    def number(self, word: str) -> int:
        """The number of one lower-case word."""
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in self._numbers:
                return self._numbers[form]
        return UNKNOWN

    def encode(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """Word numbers of each text, cut or padded with `PAD` to `length`; never without any word."""
        rows = []
        for text in texts:
            numbers = [self.number(word) for word in words_of(text)][:length] or [UNKNOWN]
            rows.append(numbers + [PAD] * (length - len(numbers)))
        return rows
