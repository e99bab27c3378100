"""Replace repeated expressions with onnxruntime; see `distinct`, whose results it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from saliency_r1.policy.confidence import token_pieces
from saliency_r1.policy.onnx.language import OnnxLanguage, Prompt
from saliency_r1.policy.repeats import BEAMS, LONGEST, MOST_REWRITTEN, first_repeat
from saliency_r1.wording import normalised

_END_OF_ONE = "</ins>"


def rewrite_repeats(
    language: OnnxLanguage, tokenizer: Any, prompt: Prompt, ids: Sequence[int], limit: int, end: int
) -> tuple[list[int], list[float]] | None:
    """Replace the repeated expressions of a response.

    Args:
        language: the model that wrote it.
        tokenizer: a `saliency_r1.policy.onnx.policy.NanoTokenizer`.
        prompt: the question.
        ids: token ids of the greedy response.
        limit: maximum number of tokens.
        end: id of the token that ends a response.

    Returns:
        Token ids of the new response and their log-probabilities; None if nothing is repeated.
    """
    ids = list(ids)
    for rewritten in range(MOST_REWRITTEN):
        pieces = token_pieces(tokenizer, ids)
        repeat = first_repeat("".join(pieces))
        if repeat is None:
            return (ids, language.scores(prompt, ids)) if rewritten else None
        kept = sum(stop <= repeat.start for stop in accumulate(map(len, pieces)))
        room = limit - kept
        if room < 2:
            break
        barred = _Barred(tokenizer, repeat.earlier)
        prefix = _expression(language, prompt, ids[:kept], barred, min(LONGEST, room), end)
        if limit > len(prefix) and prefix[-1] != end:
            behind = Prompt([*prompt.ids, *prefix], prompt.images)
            ((rest, _),) = language.greedy([behind], limit - len(prefix), end)
            prefix = prefix + rest
        ids = prefix
    return ids, language.scores(prompt, ids)


class _Barred:
    """Forbids the end of an expression that is in the answer already."""

    def __init__(self, tokenizer: Any, earlier: frozenset[str]) -> None:
        self._earlier = earlier
        self.decode: Callable[[Sequence[int]], str] = tokenizer.decode
        ends = {
            number for number, token in enumerate(tokenizer.tokens) if token.lstrip("Ġ▁ ").startswith("<")
        }
        self._ends = sorted(ends | set(tokenizer.special))

    def bar(self, logprobs: np.ndarray, ids: Sequence[int]) -> None:
        """Set the log-probabilities of forbidden next tokens to minus infinity, in place."""
        _, opened, written = self.decode(ids).rpartition("<ins>")
        if opened and _END_OF_ONE not in written and normalised(written) in {"", *self._earlier}:
            logprobs[self._ends] = -np.inf


def _expression(
    language: OnnxLanguage, prompt: Prompt, prefix: list[int], barred: _Barred, limit: int, end: int
) -> list[int]:
    """Append the most probable expression to the prefix, by beam search as in transformers."""
    written = language.chosen(language.read([Prompt([*prompt.ids, *prefix], prompt.images)]), [0] * BEAMS)
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    while True:
        totals = []
        for (score, ids), logprobs in zip(beams, written.logprobs, strict=False):
            allowed = logprobs.copy()
            barred.bar(allowed, [*prefix, *ids])
            totals.append(allowed + np.float32(score))
        flat = np.concatenate(totals)
        going: list[tuple[float, list[int], int]] = []
        length = len(beams[0][1]) + 1
        for rank, index in enumerate(np.argsort(-flat, kind="stable")[: 2 * BEAMS].tolist()):
            row, token = divmod(index, language.vocabulary)
            score, ids = float(flat[index]), [*beams[row][1], token]
            if token == end or length >= limit or barred.decode(ids[-LONGEST:]).endswith(_END_OF_ONE):
                if rank < BEAMS:
                    finished.append((score / length, ids))
            else:
                going.append((score, ids, row))
        finished = sorted(finished, key=lambda each: -each[0])[:BEAMS]
        going = going[:BEAMS]
        full = len(finished) == BEAMS
        if not going or (full and going[0][0] / length <= finished[-1][0]):
            return prefix + finished[0][1]
        beams = [(score, ids) for score, ids, _ in going]
        rows = language.chosen(written, [row for _, _, row in going])
        written = language.step(rows, [ids[-1] for _, ids in beams])
