"""CGPO: one completion a prompt, and A = r - c, the reward less the policy's own confidence in it.

Paper: arXiv 2511.00396. What it leaves open is ours and marked so in docs/cgpo.md, and so are baselines. All
but the advantage is TRL's GRPOTrainer: sampling, the clipped token objective, KL, accumulation, several
passes, LoRA, images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from saliency_r1.files import write_bytes_atomic
from saliency_r1.policy.confidence import expression_tokens, token_pieces
from saliency_r1.training.reinforcement.baselines import Baselines
from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig
from saliency_r1.training.reinforcement.grpo import MeasuredGRPOTrainer
from saliency_r1.training.reinforcement.sampling import SampledLogprobs

IMAGE_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


REMEMBERED = "baselines.json"
"""The file of a checkpoint that holds the baselines' memory."""


def sequence_confidence(logprobs: Tensor, chosen: Tensor) -> Tensor:
    """Exp of the mean log-probability of the chosen tokens of each response.

    Args:
        logprobs: float (B, T).
        chosen: bool or {0, 1} (B, T).

    Returns:
        float32 (B,) in [0, 1]; 0 where no token is chosen.
    """
    chosen = chosen.float()
    count = chosen.sum(1)
    mean = (logprobs.float() * chosen).sum(1) / count.clamp(min=1)
    return mean.exp().clamp(max=1) * (count > 0)


def answer_tokens(token_ids: Sequence[Sequence[int]], tokenizer: Any) -> list[list[bool]]:
    """Which tokens of each response write its expressions; all of them where there is none."""
    marked = []
    for ids in token_ids:
        inside = expression_tokens(token_pieces(tokenizer, ids))
        marked.append(inside if any(inside) else [True] * len(ids))
    return marked


def prompt_key(row: dict[str, Any]) -> str:
    """Return the key of a data row's prompt: its name, if it has one, and its words."""
    prompt = row["prompt"]
    words = prompt if isinstance(prompt, str) else [message["content"] for message in prompt]
    return json.dumps([str(row.get("name", "")), words], default=str)


class CGPOTrainer(MeasuredGRPOTrainer):
    """TRL's GRPOTrainer with one completion a prompt and A = stop_grad(r - c), or with a baseline.

    c is taken at the sampling temperature, under the weights that sampled. A completion without a reward (all
    reward functions gave None or NaN) has A = 0 and counts in no mean. One whose baseline is not known yet,
    the first of a task, has A = 0 too.

    Args:
        model: as GRPOTrainer takes it.
        reward_funcs: one or several; with several, `args.reward_weights` must add up to 1, so that r lies in
            [0, 1] as c does.
        args: a `CGPOConfig`.
        **arguments: GRPOTrainer's others.

    Raises:
        ValueError: for settings that do not fit together, with what was given and how to fix it.

    Example:
        >>> trainer = CGPOTrainer(
        ...     model, reward, CGPOConfig("runs/x"), train_dataset=data, processing_class=processor
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    args: CGPOConfig
    _tag_names = ["trl", "cgpo"]
    _name = "CGPO"

    def __init__(
        self, model: Any, reward_funcs: Any, args: CGPOConfig | None = None, **arguments: Any
    ) -> None:
        args = CGPOConfig(output_dir="runs/cgpo") if args is None else args
        if not isinstance(args, CGPOConfig):
            raise ValueError(f"args is a {type(args).__name__}: CGPOTrainer needs a CGPOConfig")
        count = len(reward_funcs) if isinstance(reward_funcs, list) else 1
        weights = args.reward_weights or [1.0] * count
        if min(weights, default=0) < 0 or abs(sum(weights) - 1) > 1e-6:
            raise ValueError(
                f"reward_weights are {weights} for {count} reward functions: r must lie in [0, 1] as the "
                f"confidence does; give weights that add up to 1, such as 1/{count} each"
            )
        self._rewards: Tensor | None = None
        self._sampled: Tensor | None = None
        self._baselines = Baselines(args.baseline)
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **arguments)

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        with SampledLogprobs(model, self.temperature) as recorded:
            output = super()._generate_single_turn(*arguments, **options)
        self._sampled = recorded.of(output[0])
        return output

    def _calculate_rewards(self, *arguments: Any, **options: Any) -> Tensor:
        rewards = super()._calculate_rewards(*arguments, **options)
        rewards = rewards.masked_fill(~rewards.isfinite(), torch.nan)
        self._rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        assert self._rewards is not None
        rewards = self._total(self._rewards)
        count = len(output["completion_ids"])
        first = self.accelerator.process_index * count
        local = rewards[first : first + count]
        reinforce = self.args.confidence == "none"
        confidence = torch.zeros_like(local) if reinforce else self._confidence(output)
        taken, centres = self._of_baseline(inputs, rewards, confidence, first)
        advantages = (local - taken) - self.args.brake * (confidence - centres)
        output["advantages"] = self._scaled(advantages).nan_to_num(nan=0.0)
        self._log_advantages(rewards, confidence, output["advantages"])
        return output

    def _of_baseline(
        self, inputs: list[dict[str, Any]], rewards: Tensor, confidence: Tensor, first: int
    ) -> tuple[Tensor, Tensor]:
        """Return what to subtract from r and c of this process's completions, float32 (B,) each."""
        model: Any = self.model
        if self.args.baseline == "none" or not model.training:
            return torch.zeros_like(confidence), torch.zeros_like(confidence)
        rows = gather_object([(str(row.get("task", "")), prompt_key(row)) for row in inputs])
        tasks, prompts = zip(*rows, strict=True)
        everywhere = self.accelerator.gather(confidence).tolist()
        found = self._baselines.of(tasks, prompts, rewards.tolist(), everywhere)
        taken, centres = torch.tensor(found, device=confidence.device)
        self._metrics["train"]["baseline/mean"].append(taken.nanmean().item())
        mine = slice(first, first + len(confidence))
        return taken[mine], centres[mine]

    def _scaled(self, advantages: Tensor) -> Tensor:
        """The advantages over their deviation in the batch of all processes, if that is asked for."""
        if self.args.scale_rewards != "batch":
            return advantages
        everywhere = self.accelerator.gather(advantages)
        known = everywhere[everywhere.isfinite()]
        return advantages / (known.std(correction=0) + 1e-4) if len(known) else advantages

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save and self.args.baseline != "none":
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(folder / REMEMBERED, json.dumps(self._baselines.to_dict()).encode())
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint and (Path(checkpoint) / REMEMBERED).is_file():
            self._baselines.remember(json.loads((Path(checkpoint) / REMEMBERED).read_text()))

    def _total(self, rewards: Tensor) -> Tensor:
        """R of each completion from those of the functions (N, functions), over the ones that had a say."""
        weights = self.reward_weights.to(rewards.device) * rewards.isfinite()
        return (weights * rewards.nan_to_num(nan=0.0)).sum(1) / weights.sum(1)  # 0 / 0 is NaN

    def _confidence(self, output: dict[str, Any]) -> Tensor:
        """C of each completion, float32 (B,)."""
        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        if self.args.confidence == "answer":
            lengths = output["completion_mask"].sum(1).tolist()
            ids = [
                row[:length] for row, length in zip(output["completion_ids"].tolist(), lengths, strict=True)
            ]
            inside = torch.zeros_like(mask)
            for row, marks in enumerate(answer_tokens(ids, self._tokenizer)):
                inside[row, : len(marks)] = torch.tensor(marks, dtype=mask.dtype)
            mask = mask * inside
        return sequence_confidence(self._logprobs(output), mask)

    def _logprobs(self, output: dict[str, Any]) -> Tensor:
        """Log-probabilities of the sampled tokens (B, T) at the sampling temperature."""
        known = output.get("old_per_token_logps")
        known = self._sampled if known is None else known
        if known is not None and known.shape == output["completion_ids"].shape:
            return known
        model: Any = self.model
        sizes = self.args.per_device_train_batch_size, self.args.per_device_eval_batch_size
        with torch.no_grad():
            logprobs, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                output["completion_ids"].size(1),
                batch_size=sizes[0] if model.training else sizes[1],
                **{name: output[name] for name in IMAGE_INPUTS if name in output},
            )
        return logprobs

    def _log_advantages(self, rewards: Tensor, confidence: Tensor, advantages: Tensor) -> None:
        """Log r, c and A over all processes, and put A into the table of completions."""
        confidence, advantages = self.accelerator.gather(confidence), self.accelerator.gather(advantages)
        judged = rewards.isfinite()
        model: Any = self.model
        metrics = self._metrics["train" if model.training else "eval"]
        metrics.pop("frac_reward_zero_std", None)  # of groups, which there are not
        metrics["unjudged"].append((~judged).float().mean().item())
        if judged.any():
            kept = advantages[judged]
            metrics["advantage/mean"].append(kept.mean().item())
            metrics["advantage/std"].append(kept.std(correction=0).item())
            metrics["advantage/positive"].append((kept > 0).float().mean().item())
            if self.args.confidence != "none":
                r, c = rewards[judged], confidence[judged]
                metrics["confidence/mean"].append(c.mean().item())
                metrics["confidence/std"].append(c.std(correction=0).item())
                metrics["confidence/gap"].append((r - c).mean().item())
                metrics["confidence/gap_abs"].append((r - c).abs().mean().item())
                spread = r.std(correction=0) * c.std(correction=0)
                if spread > 0:
                    covariance = ((r - r.mean()) * (c - c.mean())).mean()
                    metrics["confidence/correlation"].append((covariance / spread).item())
        shown: Any = self._logs["advantages"]  # where TRL has put its own
        for _ in range(min(len(advantages), len(shown))):
            shown.pop()
        shown.extend(advantages.tolist())
