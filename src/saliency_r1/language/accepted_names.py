"""Whether an expression names what a picture shows: by name, synonym, or a hypernym close above it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from saliency_r1.data.prompt_examples import KnownNames
from saliency_r1.data.samples import Synset
from saliency_r1.language.expressions import NOUNS, Nouns
from saliency_r1.language.naming import NameBook
from saliency_r1.language.tree_names import words_of
from saliency_r1.wording import head_of, normalised

LEVELS = 3
"""The number of levels up WordNet at which a hypernym still names a thing."""


def accepted_names(synset: Synset, book: NameBook) -> frozenset[str]:
    """The names that count for a synset, in lower case.

    WordNet's name and synonyms, the hypernyms of the first three levels that are not abstract, and the
    plain words that the book has for these. "object" and its like name nothing.
    """
    nouns = Nouns.of(replace(synset, hypernyms=synset.hypernyms[:LEVELS]), book)
    names = {normalised(name) for name in (*nouns.names, *nouns.synonyms, *nouns.hypernyms)}
    return frozenset(names - set(NOUNS))


def known_names(synset: Synset) -> KnownNames:
    """Return what a synset may be called.

    Right are its plain name, WordNet's name and synonyms, the first hypernym, and every hypernym that is
    narrower than the plain name. The other hypernyms are wider, and so are the words of `tree_names` for
    them. "object" and what else is said of everything is neither.

    Example:
        >>> known_names(Synset("n1", "lemur", (), ("primate", "mammal", "animal")))
        KnownNames(right=('lemur', 'primate'), wider=('animal', 'mammal'))
    """
    # One picture is enough here: what it is called does not depend on how often it was seen.
    book = NameBook({synset: 1}, minimum=1)
    nouns = Nouns.of(synset, book)
    above = [word.lower() for word in synset.hypernyms]
    plain = book.name(synset)
    near = above[: above.index(plain) + 1] if plain in above else above[:1]
    return known_nouns(nouns, nouns.kinds.intersection(near), words_of(synset))


def known_nouns(nouns: Nouns, near: Iterable[str] = (), far: Iterable[str] = ()) -> KnownNames:
    """Return what may be called by these nouns: of their hypernyms those in `near` are right.

    Args:
        nouns: names of the thing.
        near: hypernyms that are right.
        far: words that are wider, beside the nouns' own hypernyms.
    """
    right = {normalised(word) for word in (*nouns.names, *nouns.synonyms, *near)} - set(NOUNS)
    wider = {normalised(word) for word in (*nouns.hypernyms, *nouns.kinds, *far)} - set(NOUNS) - right
    return KnownNames(tuple(sorted(right)), tuple(sorted(wider)))


def is_named(expression: str, names: frozenset[str]) -> bool:
    """Whether the expression's head is one of the names, in the singular or a plain plural.

    The head ends before the first of words like "in", "with" and "of": "the person with a dog" names no dog.
    A name that holds such a word itself ("bottle of lotion") has to begin in the head and stand as a whole.

    Example:
        >>> is_named("the brown dogs on the left", frozenset({"dog", "canine"}))
        True
    """
    text = normalised(expression)
    head = head_of(expression)
    for name in names:
        if head_of(name) != name:
            if re.search(rf"(?:^|\s){re.escape(name)}(?:\s|$)", text) and text.find(name) < len(head):
                return True
        elif re.search(rf"(?:^|\s){re.escape(name)}(?:s|es)?$", head):
            return True
    return False
