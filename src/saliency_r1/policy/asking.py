"""Ask a policy with the prompt that fits it, and a second time if the response does not parse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from saliency_r1.errors import ResponseError, SaliencyError
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.prompts import zero_shot_prompt
from saliency_r1.response import own_thoughts_end, parse_lenient, parse_strict
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

Questions: TypeAlias = Sequence[Sequence["Image.Image"]]
"""The images of each question."""

Write: TypeAlias = Callable[[Questions, str, int], list[PolicyOutput]]
"""Function that answers each question with that prompt in at most so many tokens."""

PLAIN_TOKENS = 192
ZERO_SHOT_TOKENS = 512


def ask(
    write: Write,
    batch: Questions,
    task: Task,
    *,
    zero_shot: bool,
    reasoning: bool = True,
    max_new_tokens: int | None = None,
) -> list[PolicyOutput]:
    """Ask a policy a batch of questions and return its responses.

    A fine-tuned policy gets the plain question, once. Any other gets an explanation of the format. If
    `parse_strict` refuses its response, it is asked a second time with the format stressed. The second
    response counts if it parses, or if it names something and the first does not; `retries` is then 1.

    Args:
        write: the function that lets the policy write.
        batch: see `saliency_r1.policy.base.Policy`.
        task: the task.
        zero_shot: whether the format must be explained.
        reasoning: whether to reason first.
        max_new_tokens: maximum tokens of a response; None for 192 tokens, or 512 if `zero_shot`.

    Raises:
        SaliencyError: if there is no such task, or a question has no image.
    """
    task = Task.parse(task)
    if not all(batch):
        raise SaliencyError("a question without an image: give at least one")
    if not batch:
        return []
    limit = max_new_tokens or default_tokens(zero_shot)
    first, again = prompts(task, zero_shot=zero_shot, reasoning=reasoning)
    outputs = write(batch, first, limit)
    unread = [index for index, output in enumerate(outputs) if again and not parses(output.text, task)]
    if unread and again:
        seconds = write([batch[index] for index in unread], again, limit)
        for index, second in zip(unread, seconds, strict=True):
            outputs[index] = settled(outputs[index], second, task)
    return outputs


def default_tokens(zero_shot: bool) -> int:
    """Maximum tokens of a response, unless another limit is given."""
    return ZERO_SHOT_TOKENS if zero_shot else PLAIN_TOKENS


def prompts(task: Task, *, zero_shot: bool, reasoning: bool) -> tuple[str, str | None]:
    """The first prompt, and that of a second try if the response does not parse; None for no second try."""
    if not zero_shot:
        return task.spec.prompt(reasoning=reasoning), None
    return (
        zero_shot_prompt(task, reasoning=reasoning),
        zero_shot_prompt(task, reasoning=reasoning, again=True),
    )


def parses(text: str, task: Task) -> bool:
    """Whether a response has the task's form."""
    try:
        parse_strict(text[own_thoughts_end(text) :], task)
    except ResponseError:
        return False
    return True


def settled(first: PolicyOutput, second: PolicyOutput, task: Task) -> PolicyOutput:
    """Choose the try that counts, see `ask`; the result records that there were two."""
    names = [bool(parse_lenient(output.text, task).expressions) for output in (first, second)]
    better = second if parses(second.text, task) or names == [False, True] else first
    return replace(
        better,
        retries=1,
        prompt_tokens=total(first.prompt_tokens, second.prompt_tokens),
        completion_tokens=total(first.completion_tokens, second.completion_tokens),
    )


def total(*counts: int | None) -> int | None:
    """Return the sum of the known counts; None if no count is known."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
