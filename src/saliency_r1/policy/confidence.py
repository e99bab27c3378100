"""How sure a policy is of the answer that it wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_EXPRESSIONS = re.compile(r"<(rg|ins)>(.*?)</\1>", re.DOTALL)


def expression_tokens(pieces: Sequence[str]) -> list[bool]:
    """Which tokens write the expressions, that is, what stands between `<rg>` or `<ins>` and its end.

    Args:
        pieces: the text that each token adds to the response; together they are the response.

    Returns:
        One bool for each token; a token that straddles a tag's end counts if it holds any of the expression.

    Example:
        >>> expression_tokens(["<answer>", "<rg>", "the", " dog", "</rg>", "</answer>"])
        [False, False, True, True, False, False]
    """
    text = "".join(pieces)
    answer = text.rfind("<answer>")
    spans = [match.span(2) for match in _EXPRESSIONS.finditer(text, max(answer, 0))]
    marked, start = [], 0
    for piece in pieces:
        end = start + len(piece)
        marked.append(any(start < last and first < end for first, last in spans))
        start = end
    return marked


def confidence(logprobs: Sequence[float], pieces: Sequence[str]) -> float | None:
    """Exp of the mean log-probability of the expressions' tokens, in [0, 1].

    Over all tokens if there is no expression; None if there is no token.

    Args:
        logprobs: of each generated token.
        pieces: as for `expression_tokens`.
    """
    chosen = [value for value, inside in zip(logprobs, expression_tokens(pieces), strict=True) if inside]
    chosen = chosen or list(logprobs)
    return min(1.0, math.exp(sum(chosen) / len(chosen))) if chosen else None
