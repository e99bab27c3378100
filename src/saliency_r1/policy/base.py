"""The protocol of a policy: a multimodal language model that looks at images and writes the response."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image

    from saliency_r1.tasks import Task


@dataclass(frozen=True)
class PolicyOutput:
    """One response, with the policy's confidence in it.

    Attributes:
        text: the response as written, tags included.
        token_ids: the generated tokens, without the prompt and without padding; empty if unknown.
        token_logprobs: the log-probability of each token under the policy, among those that may be written;
            None if unknown.
        confidence: in [0, 1], exp of the mean log-probability over the tokens of the expressions;
            None if the log-probabilities are unknown.
        expression_confidences: the same for the tokens of each expression, in order; None if unknown.
        names: names of what is salient, or shared by a group, with their probabilities, the most probable
            first; empty if the policy gives none.
        name_probability: the probability by these that the answer's name is right, in [0, 1]; None if they do
            not know the name, or the answer has no or several expressions.
        retries: 1 if the first response did not parse and the policy was asked again, else 0.
        prompt_tokens, completion_tokens: a server's counts over both tries, photos included; None
            if it counted none.
    """

    text: str
    token_ids: list[int]
    token_logprobs: list[float] | None = None
    confidence: float | None = None
    expression_confidences: tuple[float, ...] | None = None
    names: tuple[tuple[str, float], ...] = ()
    name_probability: float | None = None
    retries: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def belief(self) -> float | None:
        """The confidence in the words, times the probability of the name if that is known; or None."""
        if self.confidence is None or self.name_probability is None:
            return self.confidence
        return self.confidence * self.name_probability

    def confidences(self, count: int) -> list[float | None]:
        """Return the confidence in each of the `count` expressions that were read from the text.

        It is `confidence` for all of them if single ones are unknown, or if the text is so broken that their
        number differs.
        """
        each = self.expression_confidences
        return list(each) if each is not None and len(each) == count else [self.confidence] * count


@runtime_checkable
class Policy(Protocol):
    """Looks at images and writes a response text. It has no access to masks or segmenters."""

    @property
    def name(self) -> str:
        """The policy's name in results."""
        ...

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch.

        Args:
            batch: the images (mode RGB) of each question: one for SOD and SIS, the whole group for CoSOD.
            task: the task.
            reasoning: whether to reason before the answer.
            max_new_tokens: maximum tokens of a response; None for the policy's own limit.

        Returns:
            One output for each item, in order.
        """
        ...


@runtime_checkable
class ConcurrentPolicy(Policy, Protocol):
    """A policy that answers several questions concurrently, such as one behind a server."""

    concurrent: int
    """The number of questions that it answers at a time."""

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch, concurrently; see `Policy.respond`.

        Raises:
            SaliencyError: the first that a question raises; the others are dropped.
        """
        futures = [
            self.submit(images, task, reasoning=reasoning, max_new_tokens=max_new_tokens) for images in batch
        ]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(
        self,
        images: Sequence[Image.Image],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> Future[PolicyOutput]:
        """Start to answer one question about `images` (mode RGB); see `Policy.respond`.

        Returns:
            A future of its output. It raises an `ImageError` if only this question is refused, and another
            `SaliencyError` if no question will be answered. Cancelling it drops the question.
        """
        ...
