"""What a policy is: the multimodal language model that looks at images and writes the response."""

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
    """One response and how sure the policy was of it.

    Attributes:
        text: the response as written, tags included.
        token_ids: the generated tokens, without the prompt and without padding; empty where they are not
            known.
        token_logprobs: the log-probability of each of them under the policy, or None where it is not known.
        confidence: in [0, 1], exp of the mean log-probability over the tokens of the expressions;
            None where the log-probabilities are not known.
        expression_confidences: the same for the tokens of each expression, in their order; None where they
            are not known.
        names: what is salient, or shared by a group, may be called, each with its probability, the likeliest
            first; none where the policy does not tell.
        retries: second tries that the response took: 1 if the first one did not parse, else 0.
        prompt_tokens, completion_tokens: what a server counted, photos included and both tries together;
            None where none did.
    """

    text: str
    token_ids: list[int]
    token_logprobs: list[float] | None = None
    confidence: float | None = None
    expression_confidences: tuple[float, ...] | None = None
    names: tuple[tuple[str, float], ...] = ()
    retries: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def confidences(self, count: int) -> list[float | None]:
        """The confidence in each of the `count` expressions that were read from the text.

        It is `confidence` for all of them where they are not known one by one, or where the text is so broken
        that their number is another.
        """
        each = self.expression_confidences
        return list(each) if each is not None and len(each) == count else [self.confidence] * count


@runtime_checkable
class Policy(Protocol):
    """Looks at images and writes a response text; it knows nothing of masks or segmenters."""

    @property
    def name(self) -> str:
        """How results call it."""
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
            task: what is asked.
            reasoning: whether to reason first, or to give the answer alone.
            max_new_tokens: where to stop a response that does not end; None for the policy's own limit.

        Returns:
            One output for each item, in order.
        """
        ...


@runtime_checkable
class ConcurrentPolicy(Policy, Protocol):
    """A policy that works on several questions side by side, such as one that a server runs."""

    concurrent: int
    """How many questions it works on at a time."""

    def submit(
        self,
        images: Sequence[Image.Image],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> Future[PolicyOutput]:
        """Begin to answer one question, of `images` (mode RGB); see `Policy.respond`.

        Returns:
            Its output, or why there is none: an `ImageError` for a question that is refused while others may
            be answered, another `SaliencyError` where none will be. Cancelling it gives the question up.
        """
        ...
