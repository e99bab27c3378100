"""Find sentences about the names of instances that the answer contradicts, so that they can be left out.

A reasoning that lists instances says what tells them apart: that all have different names, or one name, or
that some share one. The embedded policy writes this sentence before the answer, and may be wrong.
"""

from __future__ import annotations

import re

from saliency_r1.cue_limits import COLOURS
from saliency_r1.language.left_out import SENTENCE
from saliency_r1.wording import ORDINALS, head_of

_DIFFERENT = re.compile(r"\b(?:differ in name|has a name of its own)\b")
_ONE = re.compile(r"\b(?:They share a name|Of one name)\b")
_SOME = re.compile(r"\bThose (?:of one name|that share a name)\b")
_INSTANCES = re.compile(r"<ins>(.*?)</ins>", re.DOTALL)
_PLACES = "left right top bottom upper lower middle centre center leftmost rightmost"
_SIZES = "large larger largest big bigger small smaller smallest little"
_BEFORE_NOUNS = frozenset((*ORDINALS, "last", *_PLACES.split(), *_SIZES.split(), *COLOURS))


def wrong_name_spans(text: str) -> list[tuple[int, int]]:
    """Return the sentences about names that the answer contradicts: first and last character (exclusive).

    Args:
        text: a response, `<think>…</think><answer><ins>…</ins>…</answer>`.

    Example:
        >>> answer = "<answer><ins>the left dog</ins><ins>the right dog</ins></answer>"
        >>> text = f"<think>Two dogs stand out. They differ in name.</think>{answer}"
        >>> [text[slice(*span)] for span in wrong_name_spans(text)]
        [' They differ in name.']
    """
    first, last = text.find("<think>") + len("<think>"), text.find("</think>")
    names = [name_of(each) for each in _INSTANCES.findall(text, max(text.rfind("<answer>"), 0))]
    if first < len("<think>") or last < 0 or len(names) < 2:
        return []
    different = len(set(names))
    wrong = [
        claim
        for claim, true in (
            (_DIFFERENT, different == len(names)),
            (_ONE, different == 1),
            (_SOME, different < len(names)),
        )
        if not true
    ]
    return [
        sentence.span()
        for sentence in SENTENCE.finditer(text, first, last)
        if any(claim.search(sentence[0]) for claim in wrong)
    ]


def name_of(expression: str) -> str:
    """Return the noun of an expression, without what says where, how large or of what colour it is.

    Example:
        >>> [name_of(text) for text in ("the second red dog from the left", "the right object", "the left")]
        ['dog', 'object', 'left']
    """
    words = head_of(expression).split()
    while len(words) > 1 and words[0] in _BEFORE_NOUNS:
        del words[0]
    return " ".join(words)
