"""Naming reward: whether an answer names the object, if its name is known, and how precisely.

Ours, not the paper's: the masks alone are as good for "the object". It joins a recipe as a reward of one's
own does:

    rewards: [saliency_r1.rewards:named]
    rewards_weights: [0.2]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from saliency_r1.data.prompt_examples import KnownNames, PromptExample
from saliency_r1.language.accepted_names import is_named
from saliency_r1.language.expressions import NOUNS
from saliency_r1.rewards.format import parsed

RIGHT, WIDER, PLAIN = 1.0, 0.6, 0.3
"""The values of a right name, of a wider word that is true, and of "the object".

A policy that is paid so says a name that it holds to be right with a probability over .6, else a wider word
of a probability over one half, else "the object".
"""

_PLAIN = frozenset(NOUNS)


def name_credit(expression: str, names: KnownNames) -> float:
    """Return the value of an expression for its noun: 1, .6, .3 or 0.

    The head of the expression decides, as for `is_named`.

    Example:
        >>> names = KnownNames(right=("beagle", "dog"), wider=("animal",))
        >>> [name_credit(text, names) for text in ("the left dog", "the animal", "the object", "the cat")]
        [1.0, 0.6, 0.3, 0.0]
    """
    for known, paid in ((frozenset(names.right), RIGHT), (frozenset(names.wider), WIDER), (_PLAIN, PLAIN)):
        if is_named(expression, known):
            return paid
    return 0.0


def named(
    completions: Sequence[str], task: Sequence[str], example: Sequence[PromptExample], **columns: Any
) -> list[float | None]:
    """The mean over the expressions of an answer of what `name_credit` pays each.

    Of several instances each expression is paired with at most one, so that the sum is largest, whatever the
    order; an expression that finds no instance left gets 0. A missed instance costs nothing here: the
    masks' part of the reward counts those. An answer that names nothing gets 0.

    Args:
        completions: the responses.
        task: the name of each one's task.
        example: the question of each, with the names of what is there.
        **columns: what other rewards look at.

    Returns:
        In [0, 1] for each; None where it has no say: a question without names, or a response that is not of
        the form.

    Example:
        >>> from saliency_r1.tasks import Task
        >>> names = KnownNames(("cat",), wider=("animal",)), KnownNames(("dog",), wider=("animal",))
        >>> mask = {"size": [2, 2], "counts": b"04"}
        >>> asked = PromptExample(
        ...     "a", Task.SIS, Task.SIS.spec.prompt(), ("a.png",), ((mask, mask),), names=names
        ... )
        >>> answer = "<think></think><answer><ins>the animal</ins><ins>the cat</ins></answer>"
        >>> named([answer], ["sis"], [asked])
        [0.8]
    """
    rewards: list[float | None] = []
    for text, kind, asked in zip(completions, task, example, strict=True):
        response = parsed(text, kind) if asked.names else None
        if response is None:
            rewards.append(None)
            continue
        rewards.append(_paired(response.expressions, asked.names))
    return rewards


def _paired(expressions: Sequence[str], names: Sequence[KnownNames]) -> float:
    """The mean credit of the expressions, each paired with at most one thing; 0 without any."""
    if not expressions:
        return 0.0
    credits = np.array([[name_credit(one, each) for each in names] for one in expressions])
    return float(credits[linear_sum_assignment(credits, maximize=True)].sum() / len(expressions))
