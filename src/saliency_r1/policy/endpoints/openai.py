"""A policy behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.asking import default_tokens, parses, prompts, settled
from saliency_r1.policy.base import ConcurrentPolicy, PolicyOutput
from saliency_r1.policy.confidence import confidence, expression_confidences
from saliency_r1.policy.endpoints.endpoint import CONCURRENT, Answer, Endpoint, EndpointError
from saliency_r1.policy.endpoints.structured import SERVERS, body, pattern
from saliency_r1.policy.options import TIMEOUT_SECONDS, PolicyOptions
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

_GREEDY = {"temperature": 0, "logprobs": True}


class OpenAIPolicy(ConcurrentPolicy):
    """Write responses with a model that a server runs. It answers up to eight questions at a time.

    Args:
        endpoint: the model, see `saliency_r1.policy.endpoints.endpoint`.
        zero_shot: whether the response format must be explained to it, see `saliency_r1.policy.asking`.
        max_new_tokens: maximum tokens of a response; None for 192 tokens, or 512 if `zero_shot`.
        structured: whether the server may write only valid tags, see
            `saliency_r1.policy.endpoints.structured`.
    """

    concurrent = CONCURRENT

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        zero_shot: bool = True,
        max_new_tokens: int | None = None,
        structured: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.zero_shot = zero_shot
        self.max_new_tokens = max_new_tokens
        self.structured = structured

    @classmethod
    def load(cls, source: str | Path | None, *, device: str, options: PolicyOptions) -> OpenAIPolicy:
        """Load the policy with a name; see `saliency_r1.policy.load_policy`.

        Raises:
            SaliencyError: if the server decides an option; otherwise see `from_address`.
        """
        for name in ("dtype", "device_map", "revision"):
            if getattr(options, name) is not None:
                raise SaliencyError(
                    f"{name} is {getattr(options, name)!r}: the server of {source!r} chooses it, leave it out"
                )
        kept = options.only("timeout", "max_pixels", "prompting", "max_new_tokens", "structured")
        return cls.from_address(str(source), **kept)

    @classmethod
    def from_address(
        cls,
        address: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_pixels: int | None = None,
        prompting: Prompting | str = Prompting.AUTO,
        max_new_tokens: int | None = None,
        structured: bool = False,
    ) -> OpenAIPolicy:
        """Create the policy of an address.

        Args:
            address: `openai:URL#MODEL`, as in `openai:http://localhost:8000/v1#Qwen2.5-VL-7B`.
            timeout: seconds for one question, including retries.
            max_pixels: maximum pixels of a photo; None for 1,003,520.
            prompting: see `Prompting`; `auto` is zero-shot, because servers do not tell.
            max_new_tokens, structured: see the class.

        Raises:
            SaliencyError: if the address is invalid; otherwise see `Endpoint`.
        """
        endpoint = Endpoint.from_address(address, timeout=timeout, max_pixels=max_pixels)
        zero_shot = Prompting.parse(prompting) is not Prompting.PLAIN
        return cls(endpoint, zero_shot=zero_shot, max_new_tokens=max_new_tokens, structured=structured)

    @property
    def name(self) -> str:
        """The names of model and server."""
        return self.endpoint.name

    def submit(
        self,
        images: Sequence[Image.Image],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> Future[PolicyOutput]:
        """Start to answer one question; see `saliency_r1.policy.base.ConcurrentPolicy`.

        The future raises a `RefusedQuestionError` if the server refuses the question, or does not answer it;
        see `Endpoint`.
        """
        if not images:
            raise SaliencyError("a question without an image: give at least one")
        limit = max_new_tokens or self.max_new_tokens or default_tokens(self.zero_shot)
        return self.endpoint.connection.start(self._respond(images, Task.parse(task), reasoning, limit))

    async def _respond(
        self, images: Sequence[Image.Image], task: Task, reasoning: bool, limit: int
    ) -> PolicyOutput:
        """Return the answer to one question, with its second try; other questions do not wait for it."""
        prompt, again = prompts(task, zero_shot=self.zero_shot, reasoning=reasoning)
        options = {**_GREEDY, **await self._structure(task, reasoning)}
        first = await self._write(images, prompt, limit, options)
        if again is None or parses(first.text, task):
            return first
        return settled(first, await self._write(images, again, limit, options), task)

    async def _structure(self, task: Task, reasoning: bool) -> dict[str, Any]:
        """Return the option that makes the server write only valid tags, if that is wanted."""
        if not self.structured:
            return {}
        server = await self.endpoint.server()
        if server not in SERVERS:
            raise EndpointError(
                f"the server at {self.endpoint.url} calls itself {server!r}: structured output is known of "
                f"{' and '.join(SERVERS)}; leave --structured out"
            )
        return {"structured": body(server, pattern(task, reasoning=reasoning))}

    async def _write(
        self, images: Sequence[Image.Image], prompt: str, limit: int, options: Mapping[str, Any]
    ) -> PolicyOutput:
        # JPEGs are made outside the loop, which serves all questions.
        question = await asyncio.to_thread(self.endpoint.question, images, prompt)
        return _output(await self.endpoint.answer([question], limit, options))


def _output(answer: Answer) -> PolicyOutput:
    logprobs, pieces = answer.logprobs, answer.pieces
    output = PolicyOutput(
        answer.text,
        token_ids=[],
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )
    if not logprobs:
        return output
    return replace(
        output,
        token_logprobs=logprobs,
        confidence=confidence(logprobs, pieces),
        expression_confidences=expression_confidences(logprobs, pieces),
    )
