"""The log-probabilities that completions are sampled with, taken while they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class SampledLogprobs:
    """A context in which a model's `generate` leaves the log-probabilities of what it sampled.

    A forward pass over the finished completions would give the same numbers at a tenth of a training step.
    Two hooks do without it: the vocabulary head's output is the distribution of the next token, and the next
    call of the embedding says which token was drawn from it.

    Args:
        model: a model of transformers, sampling with a cache, one token a step.
        temperature: temperature of sampling.

    Example:
        >>> with SampledLogprobs(model, 1.0) as recorded:  # doctest: +SKIP
        ...     completions = model.generate(prompts, do_sample=True)[:, prompts.shape[1] :]
        >>> recorded.of(completions.tolist()).shape  # doctest: +SKIP
        torch.Size([8, 57])
    """

    def __init__(self, model: Any, temperature: float) -> None:
        self._head, self._embedding = model.get_output_embeddings(), model.get_input_embeddings()
        self._temperature = temperature
        self._next: Tensor | None = None
        self._drawn: list[Tensor] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> SampledLogprobs:
        self._hooks = [
            self._head.register_forward_hook(self._keep),
            self._embedding.register_forward_pre_hook(self._look),
        ]
        return self

    def __exit__(self, *reason: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def of(self, completions: Sequence[Sequence[int]]) -> Tensor | None:
        """The log-probabilities of completions.

        Args:
            completions: the tokens of each, in the order of the prompts, cut behind their first end token.

        Returns:
            float32 (B, T), 0 behind the end of a completion; None if the model was not called as expected.
        """
        longest = max(map(len, completions), default=0)
        last = self._next
        if last is None or len(last) != len(completions) or not longest - 1 <= len(self._drawn):
            return None
        columns = [column for column in self._drawn[:longest] if len(column) == len(last)]
        if len(columns) == longest - 1:  # the last token of all is not fed back
            final = [ids[-1] if len(ids) == longest else 0 for ids in completions]
            columns.append(last.gather(1, torch.tensor(final, device=last.device)[:, None]))
        if len(columns) != longest:
            return None
        lengths = torch.tensor([len(ids) for ids in completions], device=last.device)
        inside = torch.arange(longest, device=last.device) < lengths[:, None]
        return torch.cat(columns, dim=1).masked_fill(~inside, 0.0)

    def _keep(self, module: Any, arguments: Any, logits: Tensor) -> None:
        self._next = (logits[:, -1].float() / self._temperature).log_softmax(-1)

    def _look(self, module: Any, arguments: tuple[Any, ...]) -> None:
        if self._next is not None and arguments and arguments[0].shape[1] == 1:
            self._drawn.append(self._next.gather(1, arguments[0]))
