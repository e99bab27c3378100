"""Naming reward: whether the expression of an answer names the object, where its names are known.

Ours, not the paper's: the masks alone are as good for "the object". It joins a recipe as a reward of one's
own does:

    rewards: [saliency_r1.rewards.naming:named]
    rewards_weights: [0.2]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saliency_r1.data.expressions import NOUNS
from saliency_r1.data.prompts import PromptExample
from saliency_r1.evaluation.named import is_named
from saliency_r1.rewards.format import parsed
from saliency_r1.tasks import Task

_PLAIN = frozenset(NOUNS)


def named(
    completions: Sequence[str], task: Sequence[str], example: Sequence[PromptExample], **columns: Any
) -> list[float | None]:
    """1 for a right name, .5 for "the object", 0 for a wrong name or none: a name pays if likelier right.

    Args:
        completions: the responses.
        task: the name of each one's task.
        example: the question of each, with the right names.

    Returns:
        0, .5 or 1 for each; None where it has no say: instances, a question without names, or a response that
        is not of the form.
    """
    rewards: list[float | None] = []
    for text, kind, asked in zip(completions, task, example, strict=True):
        judged = kind != Task.SIS and asked.names
        response = parsed(text, kind) if judged else None
        if response is None:
            rewards.append(None)
            continue
        expression = " ".join(response.expressions)
        plain = 0.5 if is_named(expression, _PLAIN) else 0.0
        rewards.append(1.0 if is_named(expression, frozenset(asked.names)) else plain)
    return rewards
