"""Thinking models: their own `<think>` beside ours.

The chat templates of some models (Qwen3-VL-Thinking, …) write `<think>` after the question, so that the model
continues inside it. A response would then lack its first tag, in prediction and in training. This module
changes the template so that the model writes the tag. `saliency_r1.response.own_thoughts_end` cuts off a
model's own thoughts before our form.
"""

from __future__ import annotations

import re
from typing import Any

from saliency_r1.errors import ResponseError, SaliencyError
from saliency_r1.response import Response, parse_strict
from saliency_r1.tasks import Task

_OPENING = re.compile(r"\s*<think>\s*$")
_QUESTION = {"role": "user", "content": [{"type": "text", "text": "What?"}]}
_TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "</ins>")


def fit_thinking(processor: Any, where: str) -> None:
    """Change a processor's chat template so that the model writes `<think>`.

    Args:
        processor: a processor with a chat template; it is changed in place, and saves the changed template.
        where: its name in errors.

    Raises:
        SaliencyError: if our tags are special tokens of its tokenizer; they would be dropped from responses.
    """
    special = [tag for tag in _TAGS if tag in processor.tokenizer.all_special_tokens]
    if special:
        raise SaliencyError(
            f"the tokenizer of {where!r} makes {special[0]} a special token, which vanishes from responses: "
            'set "special": false for it in its tokenizer.json'
        )
    opening = forced_opening(processor)
    if opening:
        processor.chat_template = _without(processor.chat_template, opening)


def forced_opening(processor: Any) -> str:
    """Return what a chat template writes after the question from `<think>` on, with white space; often ""."""
    if not isinstance(processor.chat_template, str):
        return ""
    found = _OPENING.search(processor.apply_chat_template([_QUESTION], add_generation_prompt=True))
    return found[0].lstrip(" \t\r\n") if found else ""


def _without(template: str, opening: str) -> str:
    """Return the template, which removes that text from its end.

    The empty expressions prevent white space at the ends of the template from being trimmed.
    """
    return (
        "{% set written %}{{ '' }}"
        + template
        + "{{ '' }}{% endset %}{{ written.removesuffix("
        + repr(opening)
        + ") if add_generation_prompt else written }}"
    )


def check_reasoning_is_kept(processor: Any, where: str) -> None:
    """Check that a chat template writes our responses unchanged, so that training sees the reasoning.

    Raises:
        SaliencyError: if it drops the reasoning or a tag.
    """
    response = Response("It is large.", ("the disc",), Task.SOD.spec.tag)
    answer = {"role": "assistant", "content": [{"type": "text", "text": response.text}]}
    asked = processor.apply_chat_template([_QUESTION], add_generation_prompt=True)
    written = processor.apply_chat_template([_QUESTION, answer])
    text = written.removeprefix(asked)
    try:
        # An end token and white space may follow.
        kept = parse_strict(text[: text.rfind("</answer>") + len("</answer>")], Task.SOD)
    except ResponseError:
        kept = None
    if kept != response:
        raise SaliencyError(
            f"the chat template of {where!r} does not write a response as it is: its reasoning would be lost "
            "in training; give the folder a chat_template.jinja that keeps the content of assistant messages"
        )
