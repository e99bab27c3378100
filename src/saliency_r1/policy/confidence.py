"""The policy's confidence in the answer that it wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, compress, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from saliency_r1.nano.name_tree import NameTree
    from saliency_r1.policy.base import PolicyOutput

_EXPRESSIONS = re.compile(r"<(rg|ins)>(.*?)</\1>", re.DOTALL)


def _spans(text: str) -> list[tuple[int, int]]:
    """Return the first and last character (exclusive) of each expression of the answer."""
    answer = text.rfind("<answer>")
    return [match.span(2) for match in _EXPRESSIONS.finditer(text, max(answer, 0)) if match[2].strip()]


def _bounds(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first and last character (exclusive) of each token."""
    ends = list(accumulate(map(len, pieces)))
    return list(zip([0, *ends], ends, strict=False))


def expression_tokens(pieces: Sequence[str]) -> list[bool]:
    """Find the tokens that write the expressions, that is, the text between `<rg>` or `<ins>` and its end.

    Args:
        pieces: the text that each token adds to the response; together they are the response.

    Returns:
        One bool for each token; a token across a tag's end counts if it contains part of the expression.

    Example:
        >>> expression_tokens(["<answer>", "<rg>", "the", " dog", "</rg>", "</answer>"])
        [False, False, True, True, False, False]
    """
    spans = _spans("".join(pieces))
    return [any(start < last and first < end for first, last in spans) for start, end in _bounds(pieces)]


def token_pieces(tokenizer: Any, ids: Sequence[int], text: str | None = None) -> list[str]:
    """Return the text that each token adds to the response.

    Args:
        tokenizer: a tokenizer of transformers.
        ids: the response's tokens.
        text: the decoded tokens, if known already.

    Returns:
        One text for each token; together they are the response without its special tokens.
    """
    text = _decode(tokenizer, ids) if text is None else text
    pieces = [_decode(tokenizer, [token]) for token in ids]
    if "".join(pieces) == text:
        return pieces
    # A character may have several tokens, and tokenizers may join words: decode growing prefixes.
    lengths = [0, *(len(_decode(tokenizer, ids[: count + 1])) for count in range(len(ids)))]
    cuts = [min(length, len(text)) for length in lengths]
    return [text[first:last] for first, last in pairwise(cuts)]


def tokens_outside(pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Find the tokens that stay if parts of a response are left out.

    Args:
        pieces: text of each token, see `expression_tokens`.
        spans: first and last character (exclusive) of each part.

    Returns:
        One bool for each token. A token that a part does not contain whole stays.

    Example:
        >>> tokens_outside(["It", " is", " red", "."], [(2, 9)])
        [True, False, False, True]
    """
    return [
        start == end or not any(first <= start and end <= last for first, last in spans)
        for start, end in _bounds(pieces)
    ]


def shortened(
    output: PolicyOutput, spans: Sequence[tuple[int, int]], tokenizer: Any
) -> tuple[list[int], list[float]] | None:
    """Leave parts out of a response.

    Args:
        output: a response, with log-probabilities.
        spans: first and last character (exclusive) of each part, see `left_out_spans` and `wrong_name_spans`.
        tokenizer: a tokenizer of transformers.

    Returns:
        The tokens that stay and their log-probabilities; None if all do.
    """
    if not spans:
        return None
    stays = tokens_outside(token_pieces(tokenizer, output.token_ids, output.text), spans)
    return list(compress(output.token_ids, stays)), list(compress(output.token_logprobs or (), stays))


def confidence(logprobs: Sequence[float], pieces: Sequence[str]) -> float | None:
    """Return exp of the mean log-probability of the expressions' tokens, in [0, 1].

    Without an expression it is the mean over all tokens; None without tokens.

    Args:
        logprobs: log-probability of each generated token.
        pieces: text of each token, see `expression_tokens`.
    """
    chosen = [value for value, inside in zip(logprobs, expression_tokens(pieces), strict=True) if inside]
    chosen = chosen or list(logprobs)
    return _exp_mean(chosen) if chosen else None


def expression_confidences(logprobs: Sequence[float], pieces: Sequence[str]) -> tuple[float, ...]:
    """Return exp of the mean log-probability of each expression's tokens, in [0, 1], in order.

    Args:
        logprobs: log-probability of each generated token.
        pieces: text of each token, see `expression_tokens`.

    Example:
        >>> expression_confidences([-1, 0, -0.5, -2, 0, -9], ["<answer><ins>", "a", " dog", "</ins>", "", ""])
        (0.7788007830714049,)
    """
    bounds = _bounds(pieces)
    found = []
    for first, last in _spans("".join(pieces)):
        tokens = zip(logprobs, bounds, strict=True)
        found.append(_exp_mean([value for value, (start, end) in tokens if start < last and first < end]))
    return tuple(found)


def with_names(output: PolicyOutput, tree: NameTree, classes: np.ndarray) -> PolicyOutput:
    """Return the output with what was read of names, and with the probability of the name in its answer.

    Args:
        output: a response.
        tree: the names that the policy reads.
        classes: the probability of each of its classes for what is salient or shared, float (classes,).
    """
    spans = _spans(output.text)
    sure = tree.probability(output.text[slice(*spans[0])], classes) if len(spans) == 1 else None
    return replace(output, names=tuple(tree.best(classes)), name_probability=sure)


def _exp_mean(logprobs: Sequence[float]) -> float:
    return min(1.0, math.exp(sum(logprobs) / len(logprobs)))


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
