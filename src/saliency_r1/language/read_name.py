"""Say the name that was read of a photo, where a policy wrote one that the photo does not bear out.

The embedded policy is told a name before it writes (`nano.name_reader`). Being a small language model it puts
another in its place now and then, most of all for names that are rare in its training: "the vase" of a stork.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from saliency_r1.language.garbled import expressions_of, is_garbled
from saliency_r1.language.name_claims import name_of
from saliency_r1.nano.name_tree import NameTree


def rightly_named(
    text: str, tree: NameTree, classes: np.ndarray, threshold: float, unnamed: Callable[[], str] | None
) -> str:
    """Return a response with the name that was read, and one that a name has garbled in other words.

    Args:
        text, tree, classes, threshold: as of `with_read_name`.
        unnamed: writes a response to the same question without being told names; None to keep a garbled one.
    """
    name = tree.narrowest_of(classes, threshold)
    text = with_read_name(text, tree, classes, threshold)
    if name is None or unnamed is None or not is_garbled(text):
        return text
    again = with_name(unnamed(), name)
    return text if is_garbled(again) else again


def with_read_name(text: str, tree: NameTree, classes: np.ndarray, threshold: float) -> str:
    """Return a response that calls its one region or instance by the name that was read.

    Args:
        text: a response, `<think>…</think><answer>…</answer>`. Its reasoning is changed like its answer.
        tree: the names that the policy reads.
        classes: the probability of each of its classes for what is salient or shared, float (classes,).
        threshold: how probable a name must be to be handed on.

    Returns:
        The text as it is if its answer has no expression, or several, if no name was read, if the answer's
        name is as probable as `threshold`, or if the tree does not know it, as a name learned from texts.

    Example:
        >>> tree = NameTree(("n1", "n2"), (("stork", "bird"), ("vase",)))
        >>> text = "<think>It is the vase.</think><answer><rg>the left vase</rg></answer>"
        >>> with_read_name(text, tree, np.array([0.9, 0.1]), 0.5)
        '<think>It is the stork.</think><answer><rg>the left stork</rg></answer>'
    """
    found = expressions_of(text)
    name = tree.narrowest_of(classes, threshold)
    if len(found) != 1 or name is None:
        return text
    said, sure = name_of(found[0]), tree.probability(found[0], classes)
    if not said or sure is None or sure >= threshold or f" {name} " in f" {found[0]} ":
        return text
    return re.sub(rf"\b{re.escape(said)}\b", lambda _: name, text)


def with_name(text: str, name: str) -> str:
    """Return a response about one thing that calls it by a name in place of "object".

    Example:
        >>> with_name("<think>It is the object.</think><answer><rg>the object</rg></answer>", "stork")
        '<think>It is the stork.</think><answer><rg>the stork</rg></answer>'
    """
    several = len(expressions_of(text)) != 1
    return text if several else re.sub(r"(?<!one )\bobject\b", lambda _: name, text)
