"""Rewards: how good a response is, in [0, 1], judged by its form and by real masks.

One file a kind, each a small pure function; `combined` joins them and is what the trainers call; `segmenting`
is the fast way from expressions to masks; `own` loads a user's. The names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saliency_r1.lazy import lazy_names

if TYPE_CHECKING:
    from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
    from saliency_r1.rewards.cosod import cosod_reward
    from saliency_r1.rewards.faithfulness import faithful
    from saliency_r1.rewards.format import format_reward
    from saliency_r1.rewards.naming import named
    from saliency_r1.rewards.own import load_reward
    from saliency_r1.rewards.sis import sis_reward
    from saliency_r1.rewards.sod import sod_reward

_HOMES = {
    "RewardWeights": "combined",
    "SaliencyReward": "combined",
    "cosod_reward": "cosod",
    "faithful": "faithfulness",
    "format_reward": "format",
    "load_reward": "own",
    "named": "naming",
    "sis_reward": "sis",
    "sod_reward": "sod",
}

__all__ = [
    "RewardWeights",
    "SaliencyReward",
    "cosod_reward",
    "faithful",
    "format_reward",
    "load_reward",
    "named",
    "sis_reward",
    "sod_reward",
]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
