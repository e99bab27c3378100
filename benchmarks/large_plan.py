"""The plan of memory and time for training Qwen2.5-VL 3B and 7B, worked out; nothing is loaded or run.

    python benchmarks/large_plan.py

It prints the tables of docs/large-training.md, which says what each line stands for. GB are 10^9 bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

VOCABULARY = 151_936
PHOTO_TOKENS = 512
QUESTION_TOKENS, RESPONSE_TOKENS, LONGEST_RESPONSE = 70, 120, 256
PATCHES = 2048
VISION = {"width": 1280, "layers": 32}
PASS = 4
"""Questions of SOD a pass of `sft` and of `cgpo`, in the recipes."""
ANSWERS = 16
"""A step's on each GPU: `batch_size` times `accumulation`."""
EXAMPLES = 10_000
SEGMENTER, REWARD = 2.6, 3.0
"""GB of EVF-SAM in bfloat16, and of what SAM's encoder takes at 1024 pixels."""
SPARE = 1.2
"""For the allocator and CUDA."""
TILE = (4096, 32_768)
"""Tokens and entries of the vocabulary in a tile of TRL's fused output head."""
CARD = 80.0
UTILISATION, VLLM_LENGTH, VLLM_PEAK = 0.45, 4096, 4.0
"""Share of a GPU that vLLM gets, the tokens of its longest sequence, GB of its largest pass (assumed)."""

FLOPS = 0.35 * 989e12
WRITING_STEP = 0.030
GATHERING = 315e9
SEGMENTER_SECONDS = 0.1
CPU_SECONDS = 0.085
"""A photo of 1280x960 on one thread: decoded, prepared, masks compared; measured on two cores."""


@dataclass(frozen=True)
class Model:
    """Sizes of a policy; numbers of weights in 10^9."""

    name: str
    weights: float
    vision: float
    language: float
    adapters: float
    width: int
    inner: int
    layers: int
    key_width: int
    tied: bool

    @property
    def head(self) -> float:
        """Weights of the output head."""
        return VOCABULARY * self.width / 1e9

    @property
    def layer(self) -> float:
        """Weights of one layer of the language model."""
        return (self.language - self.head) / self.layers

    @property
    def token_bytes(self) -> int:
        """Keys and values of a token in bfloat16."""
        return 2 * self.layers * self.key_width * 2


MODELS = (
    Model("3B", 3.755, 0.67, 3.09, 0.12, 2048, 11_008, 36, 256, True),
    Model("7B", 8.292, 0.68, 7.07, 0.16, 3584, 18_944, 28, 512, False),
)


@dataclass(frozen=True)
class Set:
    """A configuration of GPUs."""

    name: str
    parts: int = 1
    adapters: bool = False
    gathers_all: bool = False


SETS = (
    Set("one GPU, rank 64", adapters=True),
    Set("FSDP on 8", 8),
    Set("ZeRO-3 on 8", 8, gathers_all=True),
    Set("FSDP on 2 × 8", 16),
)


def weights(model: Model, gpus: Set) -> float:
    """Weights, gradients and optimiser, GB a GPU."""
    if gpus.adapters:
        return 2 * model.weights + 16 * model.adapters
    return 16 * model.weights / gpus.parts


def gathered(model: Model) -> float:
    """Two layers, a third for gradients, input embedding and output head, bfloat16."""
    return 2 * (3 * model.layer + (1 if model.tied else 2) * model.head)


def activations(model: Model, tokens: int, photos: int) -> dict[str, float]:
    """Return the GB of activations of one pass of the update."""
    return {
        "inputs of all layers": tokens * model.width * model.layers * 2 / 1e9,
        "one layer computed again": tokens * (3 * model.inner + 8 * model.width) * 2 / 1e9,
        "vision tower": photos * PATCHES * VISION["width"] * VISION["layers"] * 2 / 1e9,
    }


def head(model: Model, gpus: Set, labelled: int) -> float:
    """The output head: a tile of logits, and where the head is trained its gradient in float32."""
    tile = min(labelled, TILE[0]) * TILE[1] * 2 / 1e9
    return tile + (0.0 if gpus.adapters else 4 * model.head)


def tokens_of(photos: int) -> int:
    """Return the tokens of a question with its response."""
    return photos * PHOTO_TOKENS + QUESTION_TOKENS + RESPONSE_TOKENS


def peak(model: Model, gpus: Set, method: str) -> float:
    """Return the total GB of a GPU, without vLLM."""
    tokens = PASS * tokens_of(1)
    always = weights(model, gpus) + (0.0 if gpus.adapters else gathered(model))
    labelled = PASS * (RESPONSE_TOKENS if method == "sft" else LONGEST_RESPONSE)
    update = sum(activations(model, tokens, PASS).values()) + head(model, gpus, labelled)
    if method == "sft":
        return SPARE * (always + update)
    rollout = keys_and_values(model) + (2 * model.weights if gpus.gathers_all else 0.0)
    return SPARE * (always + SEGMENTER + max(rollout, REWARD, update))


def keys_and_values(model: Model) -> float:
    """Return the GB of keys and values of a step's answers on one GPU."""
    length = PHOTO_TOKENS + QUESTION_TOKENS + LONGEST_RESPONSE
    return ANSWERS * length * model.token_bytes / 1e9


def vllm(model: Model) -> dict[str, float]:
    """Return the GB that vLLM needs: weights, a pass, one longest sequence and a step's answers."""
    return {
        "weights": 2 * model.weights,
        "a pass": VLLM_PEAK,
        "keys and values": keys_and_values(model) + VLLM_LENGTH * model.token_bytes / 1e9,
    }


def update_seconds(model: Model, gpus: Set, questions: int, tokens: int) -> float:
    """Return the seconds of gradient passes over questions of so many tokens; gathering overlaps."""
    language, vision = (6, 2) if gpus.adapters else (8, 8)
    operations = questions * (tokens * model.language * language + PATCHES * model.vision * vision)
    return operations * 1e9 / FLOPS


def seconds(model: Model, gpus: Set, group: int = 1) -> dict[str, float]:
    """Return the seconds of a step of `cgpo`, or of `grpo` with groups of twice as many answers on a GPU."""
    answers = ANSWERS if group == 1 else 2 * ANSWERS
    photos = answers / group
    step = WRITING_STEP
    if gpus.parts > 1 and not gpus.gathers_all:
        step += 2 * model.weights * 1e9 * (1 - 1 / gpus.parts) / GATHERING
    return {
        "rollout": LONGEST_RESPONSE * step,
        "reward": photos * SEGMENTER_SECONDS,
        "update": update_seconds(model, gpus, answers, PHOTO_TOKENS + QUESTION_TOKENS + LONGEST_RESPONSE),
        "processor": photos * CPU_SECONDS,
    }


def table(heading: str, rows: list[list[str]]) -> None:
    """Print Markdown."""
    print(f"{heading}\n{'|---' * (heading.count('|') - 1)}|")
    for row in rows:
        # As numbers are written on all pages.
        print(re.sub(r"(?<![\d.])(?<!: )0\.(?=\d)", ".", f"| {' | '.join(row)} |"))
    print()


def main() -> None:
    """Print the tables."""
    small, large = MODELS
    table(
        "| configuration | 3B | 7B |",
        [[gpus.name, *(f"{weights(model, gpus):.1f}" for model in MODELS)] for gpus in SETS],
    )
    all_weights = Set("FSDP", 8)
    lines = [["gathered weights", *(f"{gathered(model):.1f}" for model in MODELS)]]
    for name in activations(small, 1, 1):
        values = (activations(model, PASS * tokens_of(1), PASS)[name] for model in MODELS)
        lines.append([name, *(f"{value:.1f}" for value in values)])
    for method, labelled in (("sft", RESPONSE_TOKENS), ("cgpo", LONGEST_RESPONSE)):
        values = (head(model, all_weights, PASS * labelled) for model in MODELS)
        lines.append([f"output head, `{method}`", *(f"{value:.1f}" for value in values)])
    lines.append(["keys and values", *(f"{keys_and_values(model):.1f}" for model in MODELS)])
    table("| part | 3B | 7B |", lines)
    table(
        "| total | `sft` 3B | `sft` 7B | `cgpo` 3B | `cgpo` 7B |",
        [
            [gpus.name]
            + [f"{peak(model, gpus, method):.0f}" for method in ("sft", "cgpo") for model in (small, large)]
            for gpus in SETS
        ],
    )
    need = vllm(large)
    table(
        "| vLLM beside 7B, GB of 80 | |",
        [
            *([name, f"{value:.1f}"] for name, value in need.items()),
            [f"its limit (`vllm_memory: {UTILISATION}`)", f"{UTILISATION * CARD:.0f}"],
            ["beside it, the policy in float32 before sharding", f"{4 * large.weights:.1f}"],
        ],
    )
    rows = []
    for model in MODELS:
        minutes = [update_seconds(model, gpus, EXAMPLES // gpus.parts, tokens_of(1)) / 60 for gpus in SETS]
        rows.append([f"`sft`, 10,000 examples, {model.name}, min", *(f"{value:.1f}" for value in minutes)])
    for method, model, group in (("cgpo", small, 1), ("cgpo", large, 1), ("grpo", large, 8)):
        columns = []
        for gpus in SETS:
            parts = seconds(model, gpus, group)
            gpu = [parts[name] for name in ("rollout", "reward", "update")]
            columns.append(f"{' + '.join(f'{value:.1f}' for value in gpu)} = {sum(gpu):.0f}")
        rows.append([f"`{method}`, a step, {model.name}, s: rollout + reward + update", *columns])
    table(f"| | {' | '.join(gpus.name for gpus in SETS)} |", rows)
    alone = seconds(large, SETS[0])["processor"]
    print(f"The processor adds {alone:.1f} s a step of 16 prompts of one photo, on one thread.")
    assert math.fsum(need.values()) < UTILISATION * CARD < CARD - 4 * large.weights


if __name__ == "__main__":
    main()
