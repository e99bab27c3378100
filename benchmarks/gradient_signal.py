"""How much of one completion's gradient points where the expected reward grows, and how much is noise.

    python benchmarks/gradient_signal.py --start runs/sft-early/checkpoint-250

Several completions of each prompt are sampled from one policy, and each one's gradient of its log-probability
is kept on a random part of the weights. An advantage is a weight on these: so every method is judged on the
very same completions, without training. The direction of reference is that of the rewards less their prompt's
mean. All products are taken between two halves of the completions, so that noise does not pass for signal.

Printed first is what benchmarks/crossover.py wants to know of a policy: p from the seconds of the first
completion of each prompt, which also reads, encodes and remembers the photo, and of the later ones; t; and
for each single-sample advantage its e, beside the e below which single samples win against groups of --group.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossover import crossing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """What was sampled, one entry a completion.

    Attributes:
        prompt, task: int (N,), which prompt and task it answers.
        half: bool (N,), which half it is of.
        reward, confidence, answer: float (N,) in [0, 1]; `answer` is the confidence over the expressions.
        products: float (N, N), the gradients' inner products.
        shared: seconds that a prompt takes beside those of a completion, over these; NaN if not measured.
    """

    prompt: NDArray[np.int64]
    task: NDArray[np.int64]
    half: NDArray[np.bool_]
    reward: Array
    confidence: Array
    answer: Array
    products: Array
    shared: float = float("nan")

    @property
    def within(self) -> float:
        """The mean of (r - mu)^2 |s|^2, mu the mean reward of the prompt."""
        apart = np.zeros_like(self.reward)
        for one in np.unique(self.prompt):
            at = self.prompt == one
            apart[at] = (self.reward[at] - self.reward[at].mean()) * (at.sum() / (at.sum() - 1)) ** 0.5
        return float((apart**2 * np.diag(self.products)).mean())

    def error(self, advantage: Array) -> float:
        """The squared error of the baseline of an advantage, weighed by |s|^2, over `within`: e."""
        return float((advantage**2 * np.diag(self.products)).mean()) / self.within - 1

    @property
    def between(self) -> float:
        """The variance of the gradient between prompts over that within: t."""
        weight = self.less_mean(self.reward, self.prompt)
        across = np.outer(weight, weight) * self.products * (self.half[:, None] & ~self.half[None])
        same = self.prompt[:, None] == self.prompt[None]
        pairs = self.half[:, None] & ~self.half[None]
        of_prompt = float(across[same].sum()) / (pairs & same).sum()
        of_all = float(across[~same].sum()) / (pairs & ~same).sum()
        return (of_prompt - of_all) / (self.within - of_prompt)

    def less_mean(self, values: Array, group: NDArray[np.int64]) -> Array:
        """The values less the mean of the others of their group in the same half."""
        result = np.zeros_like(values)
        for half in (False, True):
            for one in np.unique(group):
                at = (self.half == half) & (group == one)
                count = at.sum()
                result[at] = (values[at] - values[at].mean()) * count / max(count - 1, 1)
        return result

    def scaled(self) -> Array:
        """GRPO's advantage: the reward less its group's mean, over its group's deviation."""
        result = self.less_mean(self.reward, self.prompt)
        for half in (False, True):
            for one in np.unique(self.prompt):
                at = (self.half == half) & (self.prompt == one)
                result[at] /= self.reward[at].std() + 1e-4
        return result


METHODS: dict[str, Callable[[Samples], Array]] = {
    "GRPO: r less its group's mean, over its deviation": lambda s: s.scaled(),
    "r less its group's mean": lambda s: s.less_mean(s.reward, s.prompt),
    "REINFORCE: r": lambda s: s.reward,
    "r less its task's mean": lambda s: s.less_mean(s.reward, s.task),
    "CGPO: r - c": lambda s: s.reward - s.confidence,
    "CGPO, lambda .5: r - c/2": lambda s: s.reward - s.confidence / 2,
    "CGPO, answer: r - c of the expressions": lambda s: s.reward - s.answer,
    "r - c less its task's mean": lambda s: s.less_mean(s.reward - s.confidence, s.task),
    "r - c/4 less its task's mean": lambda s: s.less_mean(s.reward - s.confidence / 4, s.task),
    "the brake alone: -c": lambda s: -s.confidence,
}


GROUPED = ("GRPO: r less its group's mean, over its deviation", "r less its group's mean")
SINGLE = tuple(name for name in METHODS if name not in (*GROUPED, "the brake alone: -c"))


def main() -> None:
    """Sample, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--recipe", type=Path, default=Path("recipes/nano/cgpo.yaml"))
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="over the recipe")
    arguments.add_argument("--start", help="the policy's folder; the recipe's if not given")
    arguments.add_argument("--prompts", type=int, default=96, help="spread over all of the recipe")
    arguments.add_argument("--completions", type=int, default=8, help="of each prompt, an even number")
    arguments.add_argument("--batch", type=int, default=24, help="completions sampled at a time")
    arguments.add_argument("--weights", type=int, default=150_000, help="kept of each gradient")
    arguments.add_argument("--group", type=int, default=8, help="completions of the groups to compare with")
    options = arguments.parse_args()
    if options.completions < 4 or options.completions % 2:
        sys.exit(f"--completions {options.completions}: give an even number, 4 or more")
    samples = sample(options)
    print(f"{crossing_of(samples, options.group)}\n\n{table(samples)}")


def sample(options: argparse.Namespace) -> Samples:
    """The completions of all prompts with their gradients."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.prompt_examples import read_prompts
    from saliency_r1.data.samples import spread
    from saliency_r1.training.config import load_recipe
    from saliency_r1.training.reinforcement.cgpo import IMAGE_INPUTS
    from saliency_r1.training.reinforcement.train import CGPORecipe, build_trainer, rl_settings

    recipe = load_recipe(options.recipe, CGPORecipe, options.set)
    prompts = spread(read_prompts(recipe.train), options.prompts)
    # Batches of one task: their prompts are of like length.
    prompts = sorted(prompts, key=lambda prompt: str(prompt.task))
    tasks = sorted({str(prompt.task) for prompt in prompts})
    found: list[tuple[int, int, bool, float, float, float]] = []
    gradients = []
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        recipe = replace(
            recipe,
            output=Path(scratch),
            start=options.start or recipe.start,
            validation=None,
            batch_size=options.batch,
            precision="float32",
        )
        trainer: Any = build_trainer(recipe, rl_settings(recipe), prompts)[0]
        trainer.model.train()
        weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        total = sum(weight.numel() for weight in weights)
        drawn = torch.Generator().manual_seed(recipe.seed)
        kept = [
            torch.randperm(weight.numel(), generator=drawn)[: -(-options.weights * weight.numel() // total)]
            for weight in weights
        ]
        starts = range(0, len(prompts), options.batch)
        for turn in track(
            range(options.completions), "completions of each prompt", console=Console(stderr=True)
        ):
            began = perf_counter()
            for start in starts:
                numbers = range(start, min(start + options.batch, len(prompts)))
                with torch.no_grad():
                    output = trainer._generate_and_score_completions(
                        [trainer.train_dataset[number] for number in numbers]
                    )
                rewards = trainer._total(trainer._rewards)
                confidences = []
                for kind in ("all", "answer"):
                    trainer.args.confidence = kind
                    confidences.append(trainer._confidence(output))
                scored: list[Any] = []
                watch = trainer.model.register_forward_hook(
                    lambda model, inputs, result, scored=scored: scored.append(result.log_probs)
                )
                length = output["completion_ids"].size(1)
                trainer._get_per_token_logps_and_entropies(
                    trainer.model,
                    torch.cat([output["prompt_ids"], output["completion_ids"]], 1),
                    torch.cat([output["prompt_mask"], output["completion_mask"]], 1),
                    length,
                    batch_size=1,  # so that each row's backward pass is its own
                    **{name: output[name] for name in IMAGE_INPUTS if name in output},
                )
                watch.remove()
                for row, number in enumerate(numbers):
                    score = (scored[row][0, -length:] * output["completion_mask"][row]).sum()
                    parts = torch.autograd.grad(score, weights, allow_unused=True)
                    scored[row] = None
                    gradients.append(
                        torch.cat(
                            [
                                torch.zeros(len(some)) if part is None else part.flatten()[some].cpu()
                                for part, some in zip(parts, kept, strict=True)
                            ]
                        )
                    )
                    task = tasks.index(str(prompts[number].task))
                    reward, confidence, answer = (float(each[row]) for each in (rewards, *confidences))
                    found.append((number, task, turn % 2 == 1, reward, confidence, answer))
            seconds.append(perf_counter() - began)
    prompt, task_of, half, *scores = (np.array(column) for column in zip(*found, strict=True))
    stacked = torch.stack(gradients)
    products = (stacked @ stacked.T).double().numpy()
    reward_of, confidence_of, answer_of = map(np.nan_to_num, scores)
    shared = seconds[0] / float(np.mean(seconds[1:])) - 1
    return Samples(prompt, task_of, half, reward_of, confidence_of, answer_of, products, shared)


def crossing_of(samples: Samples, group: int) -> str:
    """Say p, t, the e of each single-sample advantage, and where single samples begin to win."""
    p, t = samples.shared, samples.between
    limit = crossing(p, t, group)
    lines = [
        f"p = {p:.2f}, t = {t:.2f}: single samples win against groups of {group} with e below {limit:.2f}, "
        f"and below {crossing(0, t, group):.2f} if nothing were shared",
        "",
        "| advantage of single samples | e |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {samples.error(METHODS[name](samples)):.2f} |" for name in SINGLE]
    return "\n".join(lines)


def signal_and_noise(samples: Samples, advantage: Array, among: NDArray[np.bool_]) -> tuple[float, float]:
    """Of the mean gradient, along the reference; and of one completion, in all directions; in one unit."""
    reference = samples.less_mean(samples.reward, samples.prompt)
    one, two = (among & (samples.half == half) for half in (False, True))

    def product(left: Array, right: Array) -> float:
        crossed = left[one] @ samples.products[np.ix_(one, two)] @ right[two]
        crossed += right[one] @ samples.products[np.ix_(one, two)] @ left[two]
        return float(crossed) / 2 / (one.sum() * two.sum())

    squared = product(reference, reference)
    if squared <= 0:
        sys.exit("two halves of the completions do not agree on a direction: give more --prompts")
    length = squared**0.5
    noise = float((advantage[among] ** 2 * np.diag(samples.products)[among]).mean()) ** 0.5
    return product(advantage, reference) / length, noise


def table(samples: Samples) -> str:
    """Signal, noise and what follows, with deviations from leaving out a tenth of the prompts at a time."""
    parts = samples.prompt % 10
    everything = np.ones(len(parts), bool)
    lines = [
        f"{len(np.unique(samples.prompt))} prompts, {len(parts)} completions: mean reward "
        f"{samples.reward.mean():.3f}, confidence {samples.confidence.mean():.3f}, over the expressions "
        f"{samples.answer.mean():.3f}",
        "",
        "| advantage | signal | noise of a completion | signal to noise of 128 | completions for GRPO's |",
        "| --- | --- | --- | --- | --- |",
    ]
    baseline = None
    for name, method in METHODS.items():
        advantage = method(samples)
        signal, noise = signal_and_noise(samples, advantage, everything)
        ratio = signal / noise * 128**0.5
        left_out = []
        for part in range(10):
            some, other = signal_and_noise(samples, advantage, parts != part)
            left_out.append(some / other * 128**0.5)
        deviation = (9 / 10 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)) ** 0.5
        baseline = ratio if baseline is None else baseline
        needed = f"{(baseline / ratio) ** 2:.1f} ×" if ratio > deviation else "–"  # not told from 0
        lines.append(f"| {name} | {signal:+.3f} | {noise:.2f} | {ratio:.2f} ± {deviation:.2f} | {needed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
