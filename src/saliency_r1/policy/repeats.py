"""Find expressions that an answer repeats; see `distinct`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from saliency_r1.wording import normalised

BEAMS = 4
MOST_REWRITTEN = 8
"""Maximum number of repeats in one answer that are replaced; further repeats are kept."""
LONGEST = 24
"""Maximum number of tokens of a replacement."""
_INSTANCES = re.compile(r"<ins>(.*?)</ins>", re.DOTALL)


@dataclass(frozen=True)
class Repeat:
    """An expression that an answer repeats.

    Attributes:
        start: the character after its `<ins>`.
        earlier: the expressions before it, normalised.
    """

    start: int
    earlier: frozenset[str]


def first_repeat(text: str) -> Repeat | None:
    """Find the first repeated expression of an answer; None if all are different."""
    earlier: set[str] = set()
    for match in _INSTANCES.finditer(text, max(text.rfind("<answer>"), 0)):
        expression = normalised(match[1])
        if expression in earlier:
            return Repeat(match.start(1), frozenset(earlier))
        earlier.add(expression)
    return None
