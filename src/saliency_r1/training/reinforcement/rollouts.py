"""Rollouts by vLLM: what of a recipe it is told, and what must fit together before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from transformers import AutoConfig
from trl.import_utils import is_vllm_available

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.processors import load_processor
from saliency_r1.training.run import PolicyRecipe


@dataclass(frozen=True, kw_only=True)
class RolloutRecipe(PolicyRecipe):
    """The keys of a recipe of reinforcement learning for rollouts by vLLM.

    The defaults fit Qwen2.5-VL 7B beside its training on GPUs of 80 GB, by benchmarks/large_plan.py.

    Attributes:
        vllm: who samples completions: `colocate` vLLM on the same GPUs, `server` a vLLM server on others,
            None the model itself.
        vllm_memory: share of each GPU's memory that vLLM takes with `colocate`, in (0, 1).
        vllm_length: tokens of question and answer at most with `colocate`.
        vllm_sleep: whether vLLM gives its memory back between rollouts with `colocate`.
        vllm_parallel: GPUs that share one copy of the weights with `colocate`; a divisor of their number.
        vllm_server: address of the server.

    Raises:
        ValueError: for values that cannot be.
    """

    vllm: Literal["colocate", "server"] | None = None
    vllm_memory: float = 0.45
    vllm_length: int = 4096
    vllm_sleep: bool = True
    vllm_parallel: int = 1
    vllm_server: str = "http://127.0.0.1:8000"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.vllm_memory < 1:
            raise ValueError(f"vllm_memory is {self.vllm_memory}: give a share between 0 and 1")
        for name in ("vllm_length", "vllm_parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: choose 1 or more")
        if (
            urlsplit(self.vllm_server).scheme not in ("http", "https")
            or not urlsplit(self.vllm_server).hostname
        ):
            raise ValueError(f"vllm_server is {self.vllm_server!r}: expected http://HOST:PORT")


def vllm_settings(recipe: RolloutRecipe) -> dict[str, Any]:
    """Return the arguments for TRL's GRPOConfig."""
    return {
        "use_vllm": recipe.vllm is not None,
        "vllm_mode": recipe.vllm or "colocate",
        "vllm_gpu_memory_utilization": recipe.vllm_memory,
        "vllm_max_model_length": recipe.vllm_length,
        "vllm_enable_sleep_mode": recipe.vllm_sleep and recipe.vllm == "colocate",
        "vllm_tensor_parallel_size": recipe.vllm_parallel,
        "vllm_server_base_url": recipe.vllm_server,
    }


def check_vllm(recipe: RolloutRecipe) -> None:
    """Refuse what vLLM cannot do here.

    Raises:
        SaliencyError: if vLLM is wanted and not installed, or the processes cannot be shared out.
    """
    if recipe.vllm is None:
        return
    if not is_vllm_available():
        raise SaliencyError(
            f"recipe of {recipe.output}: vllm is {recipe.vllm!r}, and the package is not installed: pip "
            "install 'trl[vllm]' in an environment of its own (it brings its own torch), or leave vllm out"
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if recipe.vllm == "colocate" and processes % recipe.vllm_parallel:
        raise SaliencyError(
            f"recipe of {recipe.output}: vllm_parallel is {recipe.vllm_parallel} for {processes} processes: "
            "give a divisor of their number"
        )


def check_stored_pixels(recipe: RolloutRecipe, policy: Any, start: str, revision: str | None) -> None:
    """Refuse a start whose stored processor makes other pixels of a photo than the one that is trained with.

    VLLM reads the processor from the start's folder, and the policy's own is bound to `max_pixels`: where the
    two disagree, a photo has another number of tokens in the rollout than in the update.

    Args:
        recipe: for the error.
        policy: a policy of transformers, loaded from `start`.
        start: folder or hub name.
        revision: on the hub.

    Raises:
        SaliencyError: if they disagree.
    """
    config = AutoConfig.from_pretrained(start, revision=revision, trust_remote_code=False)
    stored = dict(load_processor(start, config, revision).image_processor.size or {})
    bound = dict(policy.processor.image_processor.size or {})
    if stored != bound:
        raise SaliencyError(
            f"recipe of {recipe.output}: max_pixels is {policy.max_pixels}, so photos are sized by {bound}, "
            f"and the processor of {start}, which vLLM reads, sizes them by {stored}; start from a folder "
            "saved with this max_pixels (train sft writes one), or give the max_pixels of the start"
        )


def check_length(recipe: RolloutRecipe, longest_question: int, max_tokens: int) -> None:
    """Refuse questions that do not fit into vLLM's longest sequence with their answer.

    Args:
        recipe: says how long a sequence may be.
        longest_question: tokens of the longest question, photos included.
        max_tokens: where an answer is cut.

    Raises:
        SaliencyError: if they do not.
    """
    needed = longest_question + max_tokens
    if recipe.vllm == "colocate" and needed > recipe.vllm_length:
        raise SaliencyError(
            f"recipe of {recipe.output}: vllm_length is {recipe.vllm_length}, and the longest question has "
            f"{longest_question} tokens, its answer {max_tokens}; set vllm_length to {needed} or more"
        )
