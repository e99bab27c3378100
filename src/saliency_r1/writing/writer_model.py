"""A writer model behind an endpoint: its answers are kept, counted and paid from a budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.policy.endpoints.endpoint import Endpoint, EndpointError, Messages
from saliency_r1.writing.sft_set import Postponed

FAILURES = 10
"""Questions in a row without an answer after which the run stops."""


@dataclass(frozen=True)
class Prices:
    """The prices of tokens, per million, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0


@dataclass
class Usage:
    """The counts of what was asked.

    Attributes:
        answers: how many.
        prompt_tokens, completion_tokens: as the server counted them, photos included.
        uncounted: answers whose tokens it did not count.
    """

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    def add(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count one answer."""
        self.answers += 1
        self.prompt_tokens += prompt_tokens or 0
        self.completion_tokens += completion_tokens or 0
        self.uncounted += prompt_tokens is None or completion_tokens is None

    def cost(self, prices: Prices) -> float:
        """Return the cost."""
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def to_dict(self, prices: Prices) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "cost": round(self.cost(prices), 6)}


class WriterModel:
    """Answers questions, each one once: what it answered is kept on disk under a hash of all that was asked.

    It may be asked from several threads.

    Args:
        endpoint: the model.
        cache: folder of the answers; one file each, which appears in one step. Photos are not kept.
        temperature: temperature of sampling.
        max_new_tokens: where an answer ends at the latest.
        prices: prices of its tokens.
        budget: what new answers may cost in all; None for any sum. Questions under way are finished, so a few
            answers more than that may be paid.

    Raises:
        SaliencyError: for a temperature, price or budget that is none, or a budget without prices.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path,
        *,
        temperature: float = 0.7,
        max_new_tokens: int = 512,
        prices: Prices = Prices(),
        budget: float | None = None,
    ) -> None:
        for what, value in (("temperature", temperature), *asdict(prices).items()):
            if not 0 <= value < float("inf"):
                raise SaliencyError(f"{what} is {value}: give a number of at least 0")
        if budget is not None and not budget > 0:
            raise SaliencyError(f"budget is {budget}: give more than 0, or leave it out")
        if budget is not None and prices == Prices():
            raise SaliencyError("a budget needs prices: give --price-in and --price-out, per million tokens")
        self.endpoint = endpoint
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.prices = prices
        self.budget = budget
        self.new, self.from_cache = Usage(), Usage()
        self._cache = cache
        self._failures = 0
        self._lock = Lock()

    @property
    def over_budget(self) -> bool:
        """Whether the budget is spent."""
        return self.budget is not None and self.new.cost(self.prices) >= self.budget

    def ask(self, messages: Messages, seed: int) -> str:
        """The answer to a conversation, from the cache if it was asked before.

        Args:
            messages: see `Endpoint.question`.
            seed: another one may get another answer.

        Raises:
            Postponed: if the budget is spent, or the endpoint gave no answer.
            SaliencyError: if it gave none ten times in a row, or counts no tokens although there is a budget.
        """
        options = {"temperature": self.temperature, "seed": seed}
        path = self._path(messages, options)
        if (kept := _read(path)) is not None:
            with self._lock:
                self.from_cache.add(kept["prompt_tokens"], kept["completion_tokens"])
            return str(kept["text"])
        if self.over_budget:
            raise Postponed("over the budget")
        try:
            [answer] = self.endpoint.ask([messages], self.max_new_tokens, options)
        except EndpointError:
            with self._lock:
                self._failures += 1
                if self._failures >= FAILURES:
                    raise
            raise Postponed("no answer") from None
        record = {
            "text": answer.text,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        write_bytes_atomic(path, json.dumps(record, ensure_ascii=False).encode())
        with self._lock:
            self._failures = 0
            self.new.add(answer.prompt_tokens, answer.completion_tokens)
            if self.new.uncounted and self.budget is not None:
                raise SaliencyError(
                    f"{self.endpoint.name} does not say how many tokens it used, so no budget can be kept: "
                    "leave --budget out"
                )
        return answer.text

    def report(self) -> dict[str, Any]:
        """The counts of this call: what it asked, what the cache had, and what all answers in it cost."""
        every = Usage()
        for kept in self._kept():
            every.add(kept["prompt_tokens"], kept["completion_tokens"])
        return {
            "model": self.endpoint.model,
            "asked": self.new.to_dict(self.prices),
            "from the cache": self.from_cache.to_dict(self.prices),
            "all answers in the cache": every.to_dict(self.prices),
            "price of a million tokens": asdict(self.prices),
        }

    def _path(self, messages: Messages, options: dict[str, Any]) -> Path:
        """Return the file of the answer: model, sampling, texts and photos all count."""
        asked = {
            "model": self.endpoint.model,
            "max_new_tokens": self.max_new_tokens,
            **options,
            "messages": messages,
        }
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self._cache / key[:2] / f"{key}.json"

    def _kept(self) -> Iterable[dict[str, Any]]:
        for path in self._cache.glob("??/*.json"):
            if (kept := _read(path)) is not None:
                yield kept


def _read(path: Path) -> dict[str, Any] | None:
    """An answer that was kept; None if there is none, or it was tampered with."""
    try:
        kept = json.loads(path.read_bytes())
        kept["text"], kept["prompt_tokens"], kept["completion_tokens"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return dict(kept)
