"""How expressions are compared."""

from __future__ import annotations

import unicodedata

_ARTICLES = frozenset({"the", "a", "an"})
_WITHIN_WORDS = "-'"


def normalised(expression: str) -> str:
    """An expression without what does not tell it from another: case, punctuation, a leading article.

    Example:
        >>> normalised(" The Brown  dog.")
        'brown dog'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", expression).casefold())
    folded = folded.replace("’", "'")
    plain = "".join(
        letter if letter.isalnum() or letter in _WITHIN_WORDS or unicodedata.combining(letter) else " "
        for letter in folded
    )
    words = [word for part in plain.split() if (word := part.strip(_WITHIN_WORDS))]
    while len(words) > 1 and words[0] in _ARTICLES:
        del words[0]
    # What is all punctuation is no word, and yet not nothing.
    return " ".join(words) or folded.strip()
