"""Find responses that a small language model did not get right, so that they can be written again.

A name that is rare in its training can throw the embedded policy out of its sentence: "the large large large
in the centre", or a reasoning about the daisy that ends with the large piggy.
"""

from __future__ import annotations

import re

from saliency_r1.language.name_claims import name_of
from saliency_r1.wording import normalised

_TWICE = re.compile(r"\b([a-z]{3,}(?: [a-z]+)?) \1\b")
_EXPRESSION = re.compile(r"<(?:rg|ins)>(.*?)</(?:rg|ins)>", re.DOTALL)
_CONCLUSION = re.compile(r"\banswer is ([^.,<]*)")
_EMPTY = re.compile(r"\b[Tt]he (?:which|in|on|at|apart|and|is)\b")


def is_garbled(text: str) -> bool:
    """Whether a response repeats a word at once, lacks a noun, or calls its one thing by several names.

    Args:
        text: a response, `<think>…</think><answer>…</answer>`; the reasoning may be missing.

    Example:
        >>> is_garbled("<think>It is the large large dog.</think><answer><rg>the dog</rg></answer>")
        True
        >>> is_garbled("<think>A dog, so the answer is the cat.</think><answer><rg>the dog</rg></answer>")
        True
        >>> is_garbled("<think>The dog, so the answer is the dog.</think><answer><rg>the dog</rg></answer>")
        False
    """
    if _TWICE.search(text) or _EMPTY.search(text):
        return True
    thought, found = text.rpartition("<answer>")[0], expressions_of(text)
    if len(found) != 1:
        return False
    said = _CONCLUSION.search(thought)
    if said and normalised(said[1]) != normalised(found[0]):
        return True
    before = thought[: said.start()] if said else thought
    written = re.sub(r"<[^>]*>", "", before).strip()
    return bool(written) and not re.search(rf"\b{re.escape(name_of(found[0]))}\b", before)


def expressions_of(text: str) -> list[str]:
    """Return the expressions of a response's answer, without empty ones."""
    answer = max(text.rfind("<answer>"), 0)
    return [each for each in _EXPRESSION.findall(text, answer) if each.strip()]
