"""Find what is to be left out of a policy's reasoning: what its own measurements refute, and what it repeats.

The embedded policy measures each statement on its map of what is salient (`nano.evidence`). Being a small
language model it still makes some that do not hold there, and says some twice. Each sentence in the middle of
a reasoning stands for itself, so one with a refuted statement is left out, and one whose statements were all
made before. Of the first sentence only the clause is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from saliency_r1.cue_limits import TOLD, Level
from saliency_r1.language.statements import Statement, parse_statements

REFUTED = -math.tanh(Level.CLEAR.value)
"""Evidence of a statement that is on its plain limit; with less it is refuted."""
SENTENCE = re.compile(r"\s*[^.]+\.")
"""A sentence with the space before it."""
_CLAUSE = re.compile(r", which [^.]*(?=\.)")
_ANSWER = "answer is"


def left_out_spans(text: str, evidence: Sequence[float]) -> list[tuple[int, int]]:
    """Return what to leave out of a response: first and last character (exclusive), in order.

    Args:
        text: a response, `<think>…</think><answer>…</answer>`.
        evidence: a number for each statement of `TOLD`, in [-1, 1].

    Example:
        >>> text = "<think>It is the cup, which is small. It is mostly red. So the answer is the cup.</think>"
        >>> [text[slice(*span)] for span in left_out_spans(text, [-1.0] * len(TOLD))]
        [', which is small', ' It is mostly red.']
        >>> text = "<think>It is the cup, which is small. It is small. So the answer is the cup.</think>"
        >>> [text[slice(*span)] for span in left_out_spans(text, [1.0] * len(TOLD))]
        [' It is small.']
    """
    first, last = text.find("<think>") + len("<think>"), text.find("</think>")
    if first < len("<think>") or last < 0:
        return []
    refuted = {key for key, value in zip(TOLD, evidence, strict=True) if value < REFUTED}
    statements = parse_statements(text[:last])
    said: set[tuple[str, str, bool]] = set()
    spans = []
    for sentence in SENTENCE.finditer(text, first, last):
        inside = [each for each in statements if sentence.start() <= each.span[0] < sentence.end()]
        if not inside or _ANSWER in sentence[0]:
            continue
        wrong = [each.span[0] for each in inside if not each.negated and _key(each)[:2] in refuted]
        clause = _CLAUSE.search(text, sentence.start(), sentence.end())
        if wrong and clause and all(clause.start() <= start < clause.end() for start in wrong):
            spans.append(clause.span())
            inside = [each for each in inside if not clause.start() <= each.span[0] < clause.end()]
        elif sentence.start() > first and (wrong or {_key(each) for each in inside} <= said):
            spans.append(sentence.span())
            continue
        said |= {_key(each) for each in inside}
    return spans


def _key(statement: Statement) -> tuple[str, str, bool]:
    return statement.kind.value, statement.value, statement.negated
