"""Answers whose expressions are all different.

A policy that lists instances greedily may write one expression twice, so that the second instance has no name
of its own. Such an answer is cut where the repeated expression began. Beam search finds the most probable
expression that was not written before, and the rest is written greedily after it. Every token is the policy's
own: only the repeat is forbidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from saliency_r1.policy.confidence import token_pieces
from saliency_r1.policy.repeats import BEAMS, LONGEST, MOST_REWRITTEN, first_repeat
from saliency_r1.wording import normalised


def rewrite_repeats(
    model: Any, tokenizer: Any, inputs: Any, ids: Sequence[int], settings: GenerationConfig
) -> tuple[list[int], list[float]] | None:
    """Replace the repeated expressions of a response.

    Args:
        model: the model, as for `generate`.
        tokenizer: the model's tokenizer.
        inputs: the inputs of the prompt, one question.
        ids: the response's tokens, generated greedily.
        settings: how the response was generated.

    Returns:
        The tokens of the new response and the log-probability of each; None if nothing is repeated.
    """
    ids = list(ids)
    length = inputs["input_ids"].shape[1]
    for rewritten in range(MOST_REWRITTEN):
        pieces = token_pieces(tokenizer, ids)
        repeat = first_repeat("".join(pieces))
        if repeat is None:
            return (ids, token_logprobs(model, inputs, ids)) if rewritten else None
        kept = sum(end <= repeat.start for end in accumulate(map(len, pieces)))
        prefix = ids[:kept]
        room = settings.max_new_tokens - kept
        if room < 2:
            break
        beams = GenerationConfig(
            **{
                **settings.to_diff_dict(),
                "num_beams": BEAMS,
                "max_new_tokens": min(LONGEST, room),
                "stop_strings": ["</ins>"],
            }
        )
        search = _NoRepeat(tokenizer, length, repeat.earlier)
        prefix = _continued(model, tokenizer, inputs, prefix, beams, [search])
        if settings.max_new_tokens > len(prefix) and not _ended(prefix, settings):
            rest = GenerationConfig(
                **{**settings.to_diff_dict(), "max_new_tokens": settings.max_new_tokens - len(prefix)}
            )
            prefix = _continued(model, tokenizer, inputs, prefix, rest, [])
        ids = prefix
    return ids, token_logprobs(model, inputs, ids)


class _NoRepeat(LogitsProcessor):
    """Forbids the end of an expression that is in the answer already."""

    def __init__(self, tokenizer: Any, prompt: int, earlier: frozenset[str]) -> None:
        self._decode: Callable[[Any], str] = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)
        self._prompt, self._earlier = prompt, earlier
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        ends = [number for number, token in enumerate(tokens) if (token or "").lstrip("Ġ▁ ").startswith("<")]
        self._ends = torch.tensor(sorted({*ends, *tokenizer.all_special_ids}))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, ids in enumerate(input_ids[:, self._prompt :]):
            _, opened, written = self._decode(ids.tolist()).rpartition("<ins>")
            if opened and "</ins>" not in written and normalised(written) in {"", *self._earlier}:
                ends = self._ends[self._ends < scores.shape[1]].to(scores.device)
                scores[row, ends] = -torch.inf
        return scores


def _continued(
    model: Any,
    tokenizer: Any,
    inputs: Any,
    prefix: list[int],
    settings: GenerationConfig,
    processors: list[LogitsProcessor],
) -> list[int]:
    """Return the prefix and what the model writes after it, without padding."""
    extended = _extended(inputs, prefix)
    length = inputs["input_ids"].shape[1]
    output = model.generate(
        **extended,
        generation_config=settings,
        logits_processor=LogitsProcessorList(processors),
        **({"tokenizer": tokenizer} if settings.stop_strings else {}),
    )
    ids = output[0, length:].tolist()
    ends = _ends_of(settings)
    last = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    while last > len(prefix) and ids[last - 1] == settings.pad_token_id and ids[last - 1] not in ends:
        last -= 1
    return ids[:last]


def _extended(inputs: Any, ids: list[int]) -> dict[str, Any]:
    """Return the inputs with tokens of a response after the prompt."""
    prompt = inputs["input_ids"]
    new = torch.tensor([ids], dtype=prompt.dtype, device=prompt.device)
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if name == "input_ids":
            value = torch.cat([value, new], dim=1)
        elif isinstance(value, Tensor) and value.shape == prompt.shape:
            # The mask is 1 for text; token types are 0 for it.
            filled = torch.full_like(new, int(name == "attention_mask"), dtype=value.dtype)
            value = torch.cat([value, filled], dim=1)
        found[name] = value
    return found


def token_logprobs(model: Any, inputs: Any, ids: list[int]) -> list[float]:
    """Return the log-probability of each token of a response.

    Args:
        model, inputs: see `rewrite_repeats`.
        ids: the response's tokens.
    """
    length = inputs["input_ids"].shape[1]
    logits = model(**_extended(inputs, ids)).logits[0, length - 1 : -1].float()
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids, device=logits.device)[:, None])
    return chosen[:, 0].tolist()


def _ends_of(settings: GenerationConfig) -> set[int]:
    ends = settings.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _ended(ids: list[int], settings: GenerationConfig) -> bool:
    return bool(ids) and ids[-1] in _ends_of(settings)
