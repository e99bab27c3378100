"""A policy behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from saliency_r1.policy.asking import Questions, ask
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import confidence, expression_confidences
from saliency_r1.policy.endpoint import Answer, Endpoint
from saliency_r1.policy.options import TIMEOUT_SECONDS
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

_GREEDY = {"temperature": 0, "logprobs": True}


class OpenAIPolicy:
    """Writes responses with a model that a server runs.

    Args:
        endpoint: the model, see `saliency_r1.policy.endpoint`.
        zero_shot: whether the response format must be explained to it, see `saliency_r1.policy.asking`.
    """

    def __init__(self, endpoint: Endpoint, *, zero_shot: bool = True) -> None:
        self.endpoint = endpoint
        self.zero_shot = zero_shot

    @classmethod
    def from_address(
        cls,
        address: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_pixels: int | None = None,
        prompting: Prompting | str = Prompting.AUTO,
    ) -> OpenAIPolicy:
        """The policy at an address.

        Args:
            address: `openai:URL#MODEL`, as in `openai:http://localhost:8000/v1#Qwen2.5-VL-7B`.
            timeout: seconds for one question, all tries together.
            max_pixels: pixels of a photo at most; None for 1,003,520.
            prompting: see `Prompting`; `auto` is zero-shot, since a server does not say what it was taught.

        Raises:
            SaliencyError: if it is no such address; else see `Endpoint`.
        """
        endpoint = Endpoint.from_address(address, timeout=timeout, max_pixels=max_pixels)
        return cls(endpoint, zero_shot=Prompting.parse(prompting) is not Prompting.PLAIN)

    @property
    def name(self) -> str:
        """The model and the server."""
        return self.endpoint.name

    def respond(
        self,
        batch: Questions,
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch; see `saliency_r1.policy.base.Policy`.

        Up to eight questions are under way at a time.

        Raises:
            SaliencyError: if the server gives no answer in time, or one that is none.
        """
        return ask(
            self._write,
            batch,
            task,
            zero_shot=self.zero_shot,
            reasoning=reasoning,
            max_new_tokens=max_new_tokens,
        )

    def _write(self, batch: Questions, prompt: str, max_new_tokens: int) -> list[PolicyOutput]:
        conversations = [[self.endpoint.question(images, prompt)] for images in batch]
        return [_output(answer) for answer in self.endpoint.ask(conversations, max_new_tokens, _GREEDY)]


def _output(answer: Answer) -> PolicyOutput:
    logprobs, pieces = answer.logprobs, answer.pieces
    if not logprobs:
        return PolicyOutput(answer.text, token_ids=[])
    return PolicyOutput(
        answer.text, [], logprobs, confidence(logprobs, pieces), expression_confidences(logprobs, pieces)
    )
