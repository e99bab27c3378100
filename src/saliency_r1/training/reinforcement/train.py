"""Reinforcement learning of a policy: CGPO, single-sample REINFORCE and GRPO from one kind of recipe.

    saliency-r1 train cgpo --config recipes/nano/cgpo.yaml
    saliency-r1 train grpo --config recipes/nano/grpo.yaml

A run folder holds `recipe.json`, `metrics.csv`, `tensorboard/`, `checkpoint-*` and at the end `policy/`,
which `TransformersPolicy.from_pretrained` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig

from saliency_r1 import nano
from saliency_r1.data.prompt_examples import PromptExample, read_prompts
from saliency_r1.data.samples import spread
from saliency_r1.errors import SaliencyError
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.policy.prompts import Prompting
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
from saliency_r1.rewards.own import load_reward
from saliency_r1.rewards.segmenting import CachedSegmenter
from saliency_r1.segmenters.load_segmenter import load_segmenter
from saliency_r1.training.adapters import check_sharding, freeze_vision, lora
from saliency_r1.training.exporting import export_trained
from saliency_r1.training.features import FeatureMemory
from saliency_r1.training.logs import TrainerLog
from saliency_r1.training.progress import TrainerLines
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer
from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig, check_saving
from saliency_r1.training.reinforcement.grpo import MeasuredGRPOTrainer
from saliency_r1.training.reinforcement.questions import Photos, longest_question, prompt_dataset
from saliency_r1.training.reinforcement.rollouts import (
    RolloutRecipe,
    check_length,
    check_stored_pixels,
    check_vllm,
    vllm_settings,
)
from saliency_r1.training.reinforcement.validation import answer, summarise
from saliency_r1.training.run import POLICY, begin, check_keep_best, trainer_arguments

MEGABYTE = 1024**2


@dataclass(frozen=True, kw_only=True)
class RLRecipe(RolloutRecipe):
    """The base of the recipes of `train cgpo` and `train grpo`.

    Attributes:
        start: folder or hub name of the policy to start from; None for the embedded one.
        revision: revision of the start on the hub.
        segmenter: name, name with weights or folder, as `--segmenter` takes it; None for the embedded one.
        segmenter_device: where it runs, `cuda:1` say; None for where the policy runs.
        segmenter_dtype: type of its weights: auto, float32, bfloat16, float16.
        segmenter_compile: whether torch compiles its image encoder, see `BatchedSegmenter.compile`.
        passes: optimiser passes over one batch of completions; over 1 the clipping has an effect.
        schedule: the learning rate after the warm-up: constant, linear (to 0) or cosine (to 0).
        temperature: temperature of sampling.
        max_tokens: where a completion is cut.
        kl: weight of the KL divergence from the start; over 0 the start is kept in memory.
        clip: the ratio of probabilities may leave 1 by this.
        clip_high: the same upwards, where that is another number; None for `clip` (TRL's `epsilon_high`).
        loss_type: how the losses of tokens are joined, see TRL's GRPOConfig.
        lora_rank: train adapters of this rank in the language model's layers; 0 to train its weights.
        lora_alpha: their scale times the rank.
        format_weight, iou_weight, s_measure_weight: see `RewardWeights`.
        rewards: rewards of your own as Python paths, `module:function` or `file.py:function`.
        rewards_weights: weight of each of them; that of the masks is 1.
        reward_side: the longer side, in pixels, at which masks are compared; None for the photo's.
        segmenter_memory: MB for remembered encodings and masks.
        feature_memory: MB for remembered features of a frozen nano vision tower.
        max_pixels: maximum number of pixels of a photo for the policy; None for its default.
        gradient_checkpointing: whether activations are computed again in the backward pass, to save memory.
        freeze_vision: whether the vision encoder is left as it is; with adapters it is in any case.
        attn_implementation: `auto` (FlashAttention 2 where package, GPU and model have it), `sdpa`, `eager`
            or `flash_attention_2`.
        validation_prompts: number of validation questions, spread over all; None for all.
        keep_best: whether `policy/` is the checkpoint of the highest validation reward, not the last; then
            `save_every` must be a multiple of `validate_every`.

    Raises:
        ValueError: for values that do not fit together.
    """

    start: str | None = None
    revision: str | None = None
    segmenter: str | None = None
    segmenter_device: str | None = None
    segmenter_dtype: str = "auto"
    segmenter_compile: bool = False
    max_steps: int = 300
    batch_size: int = 16
    passes: int = 1
    learning_rate: float = 1e-5
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    temperature: float = 1.0
    max_tokens: int = 128
    kl: float = 0.0
    clip: float = 0.2
    clip_high: float | None = None
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo"] = "dapo"
    lora_rank: int = 0
    lora_alpha: float = 2.0
    format_weight: float = 0.1
    iou_weight: float = 0.5
    s_measure_weight: float = 0.5
    rewards: tuple[str, ...] = ()
    rewards_weights: tuple[float, ...] = ()
    reward_side: int | None = None
    segmenter_memory: int = 512
    feature_memory: int = 512
    max_pixels: int | None = None
    gradient_checkpointing: bool = False
    freeze_vision: bool = False
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    log_every: int = 5
    save_every: int = 50
    validate_every: int = 25
    validation_prompts: int | None = None
    keep_best: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.rewards) != len(self.rewards_weights) or min(self.rewards_weights, default=1) <= 0:
            raise ValueError(
                f"rewards_weights are {list(self.rewards_weights)} for {len(self.rewards)} rewards: "
                "give a number over 0 for each"
            )
        names = [path.rpartition(":")[2] for path in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"rewards are {list(self.rewards)}: two are called alike; rename one function")
        for name in ("max_steps", "passes", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: choose 1 or more")
        if self.keep_best:
            check_keep_best(self)
        if self.reward_side is not None and self.reward_side < 16:
            raise ValueError(f"reward_side is {self.reward_side}: choose 16 pixels or more, or null")
        RewardWeights(self.format_weight, self.iou_weight, self.s_measure_weight)


@dataclass(frozen=True, kw_only=True)
class CGPORecipe(RLRecipe):
    """A recipe of `train cgpo`.

    Attributes:
        confidence, brake, baseline, scale_rewards: see `CGPOConfig`; `confidence: none` is REINFORCE.
    """

    confidence: Literal["all", "answer", "none"] = "all"
    brake: float = 1.0
    baseline: Literal["none", "task", "prompt"] = "none"
    scale_rewards: Literal["none", "batch"] = "none"

    OLD_KEYS: ClassVar[dict[str, str]] = {"confidence_weight": "write brake"}


@dataclass(frozen=True, kw_only=True)
class GRPORecipe(RLRecipe):
    """A recipe of `train grpo`.

    Attributes:
        group: completions a prompt.
        scale_rewards: what r less its group's mean is divided by: the standard deviation of the `group`, of
            the `batch`, or nothing for `none`.
    """

    group: int = 8
    scale_rewards: Literal["group", "batch", "none"] = "group"


class Validator(TrainerCallback):
    """Answers the validation questions before the first step and after every `every`-th, and logs the result.

    Args:
        trainer: which is trained.
        policy: its model, to answer with.
        examples: the questions.
        photos, reward: as of `answer`.
        every: optimiser steps.
        max_new_tokens: where an answer is cut.
        keep_best: whether to mark the best of the steps that are saved, so that its checkpoint is kept.
    """

    def __init__(
        self,
        trainer: MeasuredGRPOTrainer,
        policy: TransformersPolicy,
        examples: list[PromptExample],
        photos: Photos,
        reward: SaliencyReward,
        every: int,
        max_new_tokens: int,
        keep_best: bool = False,
    ) -> None:
        self._trainer, self._policy, self._examples = trainer, policy, examples
        self._photos, self._reward = photos, reward
        self._every, self._max_new_tokens = every, max_new_tokens
        self._keep_best = keep_best

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the start; a resumed run has measured it."""
        if state.global_step == 0:
            self._validate(state, control)  # the start is no step: it is not the best of them

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is time, and at the end."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            reward = self._validate(state, control)
            if not (self._keep_best and control.should_save):
                return
            if state.best_metric is None or reward > state.best_metric:
                state.best_metric, state.best_global_step = reward, state.global_step

    def _validate(self, state: Any, control: Any) -> float:
        """The mean reward, the same in every process."""
        trainer = self._trainer
        self._policy.sharded = trainer.write_together()
        answers = answer(
            self._policy,
            self._examples,
            self._photos,
            self._reward,
            max_new_tokens=self._max_new_tokens,
            accelerator=trainer.accelerator,
        )
        summary = summarise(answers)
        if state.is_world_process_zero:
            model: Any = trainer.model
            training = model.training
            due = control.should_log
            model.eval()  # or the log would also flush the training metrics of an unfinished window
            trainer.log(summary)
            model.train(training)
            control.should_log = due  # a log clears it, but the step's own is still to come
        return summary["validation/reward"]


def train_rl(recipe: CGPORecipe | GRPORecipe, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Train a policy with CGPO or GRPO, as the recipe's type says.

    Arguments and result as of `fine_tuning.nano.train_sft`.

    Raises:
        SaliencyError: for data or settings that cannot be used, or an output that holds a run.
    """
    check_sharding(recipe.output, recipe.lora_rank)
    check_vllm(recipe)
    examples = read_prompts(recipe.train)
    held_out = read_prompts(recipe.validation) if recipe.validation else []
    settings = rl_settings(recipe)
    with settings.main_process_first():  # cut-off checkpoints are deleted by one process
        checkpoint = begin(recipe, resume=resume, overwrite=overwrite, first=settings.process_index == 0)
    trainer, policy, photos = build_trainer(recipe, settings, examples)
    TrainerLines.of(trainer, "policy")
    if held_out:
        chosen = spread(held_out, recipe.validation_prompts)
        reward: Any = trainer.reward_funcs[0]
        # Last of the callbacks, so that its time is not the step's.
        trainer.add_callback(
            Validator(
                trainer,
                policy,
                chosen,
                photos,
                reward,
                recipe.validate_every,
                recipe.max_tokens,
                recipe.keep_best,
            )
        )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = trainer.state.best_model_checkpoint
    if recipe.keep_best and best is not None:
        trainer._load_from_checkpoint(best)
    folder = recipe.output / POLICY
    export_trained(trainer, policy.processor, folder)
    return folder


def build_trainer(
    recipe: CGPORecipe | GRPORecipe, settings: GRPOConfig, examples: list[PromptExample]
) -> tuple[MeasuredGRPOTrainer, TransformersPolicy, Photos]:
    """The trainer of a recipe, ready to run, the policy that it trains, and the reader of photos."""
    set_seed(recipe.seed)
    frozen = recipe.lora_rank > 0
    dtype = torch.bfloat16 if frozen and recipe.bfloat16 else torch.float32
    policy = TransformersPolicy.from_pretrained(
        recipe.start,
        device=str(settings.device),
        dtype=dtype,
        revision=recipe.revision,
        max_pixels=recipe.max_pixels,
        prompting=Prompting.PLAIN,  # validation asks as training does
        attn_implementation=recipe.attn_implementation,
    )
    photos = Photos(recipe.image_root, policy.seen)
    if recipe.vllm is not None:
        check_stored_pixels(recipe, policy, str(recipe.start or nano.POLICY_FOLDER), recipe.revision)
        check_length(recipe, longest_question(policy.processor, examples, photos), recipe.max_tokens)
    if recipe.freeze_vision:
        freeze_vision(policy.model)
    if isinstance(policy.model, NanoForImageTextToText) and policy.model.config.freeze_vision:
        FeatureMemory(policy.model, recipe.feature_memory * MEGABYTE)
    segmenter = load_segmenter(
        recipe.segmenter, recipe.segmenter_device or str(settings.device), recipe.segmenter_dtype
    )
    if recipe.segmenter_compile:
        segmenter.compile()
    reward = SaliencyReward(
        CachedSegmenter(segmenter, recipe.segmenter_memory * MEGABYTE, longest=recipe.reward_side),
        RewardWeights(recipe.format_weight, recipe.iou_weight, recipe.s_measure_weight),
        {
            path.rpartition(":")[2]: (load_reward(path), weight)
            for path, weight in zip(recipe.rewards, recipe.rewards_weights, strict=True)
        },
    )
    kind: Any = CGPOTrainer if isinstance(recipe, CGPORecipe) else MeasuredGRPOTrainer
    trainer = kind(
        model=policy.model,
        reward_funcs=reward,
        args=settings,
        train_dataset=prompt_dataset(examples, photos),
        processing_class=policy.processor,
        callbacks=[TrainerLog(recipe)],
        peft_config=lora(recipe.lora_rank, recipe.lora_alpha) if frozen else None,
    )
    return trainer, policy, photos


def rl_settings(recipe: CGPORecipe | GRPORecipe) -> GRPOConfig:
    """The settings of the trainer.

    Raises:
        SaliencyError: for settings that do not fit together.
    """
    values: dict[str, Any] = {
        **trainer_arguments(recipe),
        "num_iterations": recipe.passes,
        "lr_scheduler_type": recipe.schedule if recipe.schedule != "constant" else "constant_with_warmup",
        "temperature": recipe.temperature,
        "max_completion_length": recipe.max_tokens,
        "beta": recipe.kl,
        "epsilon": recipe.clip,
        "epsilon_high": recipe.clip_high,
        "loss_type": recipe.loss_type,
        "scale_rewards": recipe.scale_rewards,
        "disable_dropout": True,
        "log_multimodal": False,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        **vllm_settings(recipe),
    }
    try:
        if isinstance(recipe, CGPORecipe):
            return CGPOConfig(
                confidence=recipe.confidence, brake=recipe.brake, baseline=recipe.baseline, **values
            )
        settings = GRPOConfig(num_generations=recipe.group, **values)
        check_saving(settings)
        return settings
    except ValueError as error:
        raise SaliencyError(f"recipe of {recipe.output}: {error}") from None
