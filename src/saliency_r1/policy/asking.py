"""Asking a policy: the prompt that fits it, and a second try where the response does not parse."""

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
"""Answers each question with that prompt in at most so many tokens."""

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
    """The responses of a policy to a batch of questions.

    A fine-tuned policy is asked plainly and once. Any other gets the format explained, and is asked a second
    time, with the form stressed, where `parse_strict` does not take its response. The second response counts
    if it parses, or if it names something and the first names nothing; either way `retries` is 1.

    Args:
        write: the policy at work.
        batch: see `saliency_r1.policy.base.Policy`.
        task: what is asked.
        zero_shot: whether the format must be explained.
        reasoning: whether to reason first.
        max_new_tokens: where a response ends at the latest; None for 192 tokens, or 512 if `zero_shot`.

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
    """Where a response ends at the latest, unless told otherwise."""
    return ZERO_SHOT_TOKENS if zero_shot else PLAIN_TOKENS


def prompts(task: Task, *, zero_shot: bool, reasoning: bool) -> tuple[str, str | None]:
    """What a policy is asked first, and again if that response does not parse; None for no second try."""
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
    """Which of two tries counts, see `ask`; it knows that there were two."""
    names = [bool(parse_lenient(output.text, task).expressions) for output in (first, second)]
    better = second if parses(second.text, task) or names == [False, True] else first
    return replace(
        better,
        retries=1,
        prompt_tokens=total(first.prompt_tokens, second.prompt_tokens),
        completion_tokens=total(first.completion_tokens, second.completion_tokens),
    )


def total(*counts: int | None) -> int | None:
    """The sum of the counts that are known; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
