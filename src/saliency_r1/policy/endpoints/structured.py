"""Structured output: a regular expression of the tags, to which a server holds a model's answer."""

from __future__ import annotations

from typing import Any

from saliency_r1.tasks import Task

SERVERS = ("vllm", "sglang")
"""What servers that take a regular expression call themselves, as the owner of their models."""


def pattern(task: Task, *, reasoning: bool = True) -> str:
    """The regular expression of a task's responses, whole ones.

    Example:
        >>> pattern(Task.SOD)
        '<think>[^<>]+</think><answer>(<rg>[^<>]+</rg>)?</answer>'
    """
    tag, times = task.spec.tag, "*" if task.spec.several_expressions else "?"
    thought = "[^<>]+" if reasoning else ""
    return f"<think>{thought}</think><answer>(<{tag}>[^<>]+</{tag}>){times}</answer>"


def body(server: str, expression: str) -> dict[str, Any]:
    """What a request to that server holds, so that its answer matches a regular expression.

    Args:
        server: one of `SERVERS`.
        expression: see `pattern`.
    """
    known: dict[str, dict[str, Any]] = {
        "vllm": {"structured_outputs": {"regex": expression}},
        "sglang": {"regex": expression},
    }
    return known[server]
