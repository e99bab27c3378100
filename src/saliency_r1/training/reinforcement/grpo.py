"""GRPO by TRL's own trainer, with a stopwatch: the base of CGPO, and what it is compared with.

What is added to TRL: seconds and tokens of each phase in the log, checkpoints that are marked when whole, an
order of the data that a resumed run finds again, no model card. Sampling, rewards, advantages, loss and
update are TRL's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from saliency_r1.training.checkpoints import WholeCheckpoints

PHASES = ("data", "rollout", "scoring", "reward", "segmenter", "update")
"""`segmenter` is the part of `reward` that the segmenter takes."""


class OrderOfEpoch(Sampler[int]):
    """Shuffles by the seed and the number of the epoch alone.

    TRL's sampler draws each epoch's order from a generator that no checkpoint holds: a run that is resumed in
    its second epoch would see the order of the first again.

    Args:
        sampler: TRL's.
        epoch: tells the number of the epoch that begins, or is gone on with.
    """

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]) -> None:
        self._sampler, self._epoch = sampler, epoch

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            self._sampler.generator.manual_seed((self._sampler.seed or 0) + 1_000_003 * self._epoch())
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


class MeasuredGRPOTrainer(WholeCheckpoints, GRPOTrainer):
    """TRL's GRPOTrainer that logs what each phase of an optimiser step takes; see docs/training.md.

    Logged a step: `time/data`, `time/rollout`, `time/scoring`, `time/reward`,
    `time/segmenter`, `time/update`, `time/step` in seconds of this process; `tokens/rollout` and `prompts`
    over all processes.

    Args:
        **arguments: GRPOTrainer's.

    Attributes:
        totals: `seconds`, `tokens` and `prompts` of this process's steps so far, the last two over all
            processes.
    """

    def __init__(self, **arguments: Any) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._tokens, self._prompts = 0, 0.0
        self._began = self._updated = perf_counter()
        self._preparing = 0.0
        self.totals = {"seconds": 0.0, "tokens": 0.0, "prompts": 0.0}
        super().__init__(**arguments)
        self.add_callback(_Stopwatch(self))

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add what the block takes to a phase."""
        start = perf_counter()
        yield
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds[phase] += perf_counter() - start

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The batches of an optimiser step: where it begins."""
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._tokens, self._prompts = 0, 0.0
        self._began = perf_counter()
        with self.timed("data"):
            return super().get_batch_samples(*arguments, **options)

    def _get_train_sampler(self, *arguments: Any, **options: Any) -> OrderOfEpoch:
        sampler: Any = super()._get_train_sampler(*arguments, **options)
        return OrderOfEpoch(sampler, lambda: int((self.state.epoch or 0) + 1e-6))

    def finish_step(self) -> None:
        """Log the seconds and tokens of the optimiser step that ended."""
        metrics = self._metrics["train"]
        for phase, taken in self._seconds.items():
            metrics[f"time/{phase}"].append(taken)
        seconds = perf_counter() - self._began
        metrics["time/step"].append(seconds)
        counts = torch.tensor([self._tokens, self._prompts], device=self.accelerator.device)
        tokens, prompts = self.accelerator.reduce(counts).tolist()
        metrics["tokens/rollout"].append(tokens)
        metrics["prompts"].append(prompts)
        for name, value in (("seconds", seconds), ("tokens", tokens), ("prompts", prompts)):
            self.totals[name] += value

    def write_together(self) -> bool:
        """Have all processes write until the last one is done, if weights are sharded; whether they are.

        Each token gathers weights from all processes. Transformers looks for a mark that accelerate does not
        leave.
        """
        if self.is_fsdp_enabled:
            self.accelerator.unwrap_model(self.model)._is_fsdp_managed_module = True
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _generate_single_turn(self, prompt_ids: Any, *arguments: Any, **options: Any) -> Any:
        self.write_together()
        with self.timed("rollout"):
            output = super()._generate_single_turn(prompt_ids, *arguments, **options)
        self._tokens += sum(map(len, output[0]))
        self._prompts += len(prompt_ids) / (self.num_generations or 1)
        return output

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():  # the loss's own pass
            return super()._get_per_token_logps_and_entropies(*arguments, **options)
        with self.timed("scoring"):
            return super()._get_per_token_logps_and_entropies(*arguments, **options)

    def _calculate_rewards(self, *arguments: Any, **options: Any) -> Any:
        functions: list[Any] = list(self.reward_funcs)
        segmenters = [function.segmenter for function in functions if hasattr(function, "segmenter")]
        before = sum(segmenter.counts.seconds for segmenter in segmenters)
        with self.timed("reward"):
            rewards = super()._calculate_rewards(*arguments, **options)
        self._seconds["segmenter"] += sum(one.counts.seconds for one in segmenters) - before
        return rewards

    def _prepare_inputs(self, *arguments: Any, **options: Any) -> Any:
        start = perf_counter()
        inputs = super()._prepare_inputs(*arguments, **options)
        self._preparing += perf_counter() - start
        return inputs

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        """TRL's step; the update is what remains of it without rollout and reward."""
        self._preparing = 0.0
        with self.timed("update"):
            loss = super().training_step(*arguments, **options)
        self._seconds["update"] -= self._preparing
        self._updated = perf_counter()
        return loss

    def finish_update(self) -> None:
        """Add clipping and the optimiser, which follow the last backward pass, to the update."""
        self._seconds["update"] += perf_counter() - self._updated

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """None: a run folder is no publication."""


class _Stopwatch(TrainerCallback):
    """Tells a trainer when its optimiser runs and when a step ends."""

    def __init__(self, trainer: MeasuredGRPOTrainer) -> None:
        self._trainer = trainer

    def on_optimizer_step(self, *arguments: Any, **options: Any) -> None:
        self._trainer.finish_update()

    def on_step_end(self, *arguments: Any, **options: Any) -> None:
        self._trainer.finish_step()
