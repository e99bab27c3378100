"""Compare expressions, and show them to people."""

from __future__ import annotations

import re
import unicodedata

UNNAMED = "the object"
"""The expression for an object that the policy cannot name, and for whatever stands out."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
NUMBERS = ("one", "two", "three", "four", "five", "six")

_ARTICLES = frozenset({"the", "a", "an"})
_WITHIN_WORDS = "-'"
# What follows these words does not say what the thing is, but where it is or what it has.
_LINKS = re.compile(r"\s(?:in|on|at|with|of|from|near|behind|beside|next|that|which)\s")


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


def head_of(expression: str) -> str:
    """Return what an expression calls its thing, normalised: what stands before the first of words like "in".

    Example:
        >>> head_of("The person with a dog")
        'person'
    """
    return _LINKS.split(normalised(expression), maxsplit=1)[0]
