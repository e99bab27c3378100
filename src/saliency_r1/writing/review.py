"""Whether what a writer model wrote may be learnt from: its form, its statements, its expression."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saliency_r1.errors import ResponseError
from saliency_r1.language.cues import Cues
from saliency_r1.language.faithfulness import check
from saliency_r1.masks import iou
from saliency_r1.response import Response, parse_strict
from saliency_r1.tasks import Task
from saliency_r1.writing.rationale import LONGEST_EXPRESSION
from saliency_r1.writing.writer_prompt import FORM, LONGEST, SHORTEST, clear_statements

# What the reader of a reasoning cannot know of.
_LEAK = re.compile(
    r"\b(?:outlin\w*|highlighted|annotat\w*|overlay\w*|orange (?:line|tint)|ground truth|"
    r"measure(?:d|ments?)|filed under)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Fault:
    """Why an answer is rejected.

    Attributes:
        reason: in a word or two, for counting.
        advice: what the writer is told before its next try.
    """

    reason: str
    advice: str


def review(
    text: str,
    cues: Cues,
    found: Callable[[str], np.ndarray],
    truth: np.ndarray,
    *,
    minimum_iou: float,
    minimum_faithful: float,
) -> Response | Fault:
    """The response in an answer, or what is wrong with it.

    In this order: it must be exactly of the form for SOD, name something, keep to the lengths, and not speak
    of what was drawn on the photo; it must state something that can be checked, if anything is clear; that
    share of its statements must hold for the mask; and a frozen segmenter must find the mask again from the
    expression alone.

    Args:
        text: as the writer wrote it.
        cues: measured on the true mask.
        found: the frozen segmenter on this picture: expression to mask, bool (H, W).
        truth: the true mask, bool (H, W).
        minimum_iou: least IoU of the segmenter's mask and the true one.
        minimum_faithful: share of the statements that must hold, see `saliency_r1.language.faithfulness`.
    """
    try:
        response = parse_strict(text, Task.SOD)
    except ResponseError as error:
        return Fault("malformed", f"This is not the form asked for ({error}). Write exactly {FORM}")
    reasoning, expression = " ".join(response.reasoning.split()), "".join(response.expressions)
    if fault := _worded(reasoning, expression):
        return fault
    spoken = f"{reasoning} {expression}."
    result = check(spoken, cues)
    if result.share is None and clear_statements(cues):
        return Fault("silent", "State some of what was measured, in exactly the words that were given.")
    if result.share is not None and result.share < minimum_faithful:
        false = [spoken[slice(*statement.span)] for statement, holds in result.statements if not holds]
        return Fault(
            "unfaithful",
            f"What you say does not hold for the region: {'; '.join(dict.fromkeys(false))}. "
            "Write again without it.",
        )
    if iou(found(expression), truth) < minimum_iou:
        return Fault(
            "not found",
            f'Someone with only the words "{expression}" did not find that region. Write again with a '
            "plainer expression; a common noun is enough, with a place if there are several.",
        )
    return Response(reasoning, (expression,), response.tag)


def _worded(reasoning: str, expression: str) -> Fault | None:
    """Return what is wrong with the words alone."""
    if not expression:
        return Fault("no expression", "The answer is empty, but the region is there: write an expression.")
    words = len(reasoning.split())
    if not SHORTEST <= words <= LONGEST:
        return Fault("length", f"The reasoning has {words} words: write {SHORTEST} to {LONGEST}.")
    words = len(expression.split())
    if words > LONGEST_EXPRESSION:
        return Fault(
            "long expression", f"The expression has {words} words: write at most {LONGEST_EXPRESSION}."
        )
    if leak := _LEAK.search(f"{reasoning} {expression}"):
        return Fault("leak", f'"{leak[0]}" is of what was added or given to you alone: write without it.')
    return None
