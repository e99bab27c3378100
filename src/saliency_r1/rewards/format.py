"""Format reward: whether a response has exactly the form that the task requires."""

from __future__ import annotations

from saliency_r1.errors import ResponseError
from saliency_r1.response import Response, parse_strict
from saliency_r1.tasks import Task


def parsed(text: str, task: Task | str) -> Response | None:
    """Return what `parse_strict` reads; None if the text does not have the form."""
    try:
        return parse_strict(text, task)
    except ResponseError:
        return None


def format_reward(text: str, task: Task | str) -> float:
    """Return 1 if `parse_strict` reads the response, else 0.

    Raises:
        SaliencyError: if there is no such task.

    Example:
        >>> format_reward("<think>Large.</think><answer><rg>brown dog</rg></answer>", "sod")
        1.0
        >>> format_reward("<answer>brown dog</answer>", "sod")
        0.0
    """
    return float(parsed(text, task) is not None)
