"""Compare expressions, and show them to people."""

from __future__ import annotations

import unicodedata

UNNAMED = "the object"
"""The expression for an object that the policy cannot name, and for whatever stands out."""

_ARTICLES = frozenset({"the", "a", "an"})
_WITHIN_WORDS = "-'"


def normalised(expression: str) -> str:
    """Return an expression without case, punctuation and a leading article, for comparisons.

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
    # An expression of punctuation alone has no words, but it is not empty.
    return " ".join(words) or folded.strip()


def shown_name(expression: str) -> str:
    """Return an expression as people read it: "(unnamed)" where it names nothing.

    Example:
        >>> shown_name("the object"), shown_name("the dog")
        ('(unnamed)', 'the dog')
    """
    return "(unnamed)" if normalised(expression) == normalised(UNNAMED) else expression
