"""Structured output: a regular expression of the tags that a model's answer must match."""

from __future__ import annotations

from typing import Any

from saliency_r1.tasks import Task

SERVERS = ("vllm", "sglang")
"""The names that servers with regular expressions give as the owner of their models."""


def pattern(task: Task, *, reasoning: bool = True) -> str:
    """Return the regular expression of a task's complete responses.

    Example:
        >>> pattern(Task.SOD)
        '<think>[^<>]+</think><answer>(<rg>[^<>]+</rg>)?</answer>'
    """
    tag, times = task.spec.tag, "*" if task.spec.several_expressions else "?"
    thought = "[^<>]+" if reasoning else ""
    return f"<think>{thought}</think><answer>(<{tag}>[^<>]+</{tag}>){times}</answer>"


def body(server: str, expression: str) -> dict[str, Any]:
    """Return the part of a request that makes the answer match a regular expression.

    Args:
        server: one of `SERVERS`.
        expression: a pattern, see `pattern`.
    """
    known: dict[str, dict[str, Any]] = {
        "vllm": {"structured_outputs": {"regex": expression}},
        "sglang": {"regex": expression},
    }
    return known[server]
