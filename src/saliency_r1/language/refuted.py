"""Find what a policy's own measurements refute of its reasoning, so that it can be left out.

The embedded policy measures each statement on its map of what is salient (`nano.evidence`). Being a small
language model it still makes some that do not hold there. Each sentence in the middle of a reasoning stands
for itself, so one with such a statement is left out; of the first sentence only the clause is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from saliency_r1.cue_limits import TOLD, Level
from saliency_r1.language.statements import parse_statements

REFUTED = -math.tanh(Level.CLEAR.value)
"""Evidence of a statement that is on its plain limit; with less it is refuted."""
_SENTENCE = re.compile(r"\s*[^.]+\.")
_CLAUSE = re.compile(r", which [^.]*(?=\.)")
_ANSWER = "answer is"


def refuted_spans(text: str, evidence: Sequence[float]) -> list[tuple[int, int]]:
    """Return what to leave out of a response: first and last character (exclusive), in order.

    Args:
        text: a response, `<think>…</think><answer>…</answer>`.
        evidence: a number for each statement of `TOLD`, in [-1, 1].

    Example:
        >>> text = "<think>It is the cup, which is small. It is mostly red. So the answer is the cup.</think>"
        >>> [text[slice(*span)] for span in refuted_spans(text, [-1.0] * len(TOLD))]
        [', which is small', ' It is mostly red.']
    """
    first, last = text.find("<think>") + len("<think>"), text.find("</think>")
    if first < len("<think>") or last < 0:
        return []
    refuted = {key for key, value in zip(TOLD, evidence, strict=True) if value < REFUTED}
    wrong = [
        each.span
        for each in parse_statements(text[:last])
        if not each.negated and (each.kind.value, each.value) in refuted
    ]
    spans = []
    for sentence in _SENTENCE.finditer(text, first, last):
        inside = [span for span in wrong if sentence.start() <= span[0] < sentence.end()]
        clause = _CLAUSE.search(text, sentence.start(), sentence.end())
        if not inside or _ANSWER in sentence[0]:
            continue
        if clause and all(clause.start() <= start < clause.end() for start, _ in inside):
            spans.append(clause.span())
        elif sentence.start() > first:
            spans.append(sentence.span())
    return spans
