"""The internals of TRL and transformers that the trainers override: an upgrade that changes one fails here.

What to do then: read the new method, adapt the override named in the message, and pin the new version.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
from transformers import Trainer
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.utils import RepeatSampler

from saliency_r1.training.checkpoints import WholeCheckpoints
from saliency_r1.training.fine_tuning.large import LargeSFTTrainer
from saliency_r1.training.fine_tuning.nano import PolicySFTTrainer
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer
from saliency_r1.training.reinforcement.grpo import MeasuredGRPOTrainer, OrderOfEpoch

GRPO = {
    "_load_optimizer_and_scheduler": "self, checkpoint",
    "_calculate_rewards": "self, inputs, prompts, completions, completion_ids_list",
    "_generate_and_score_completions": "self, inputs",
    "_generate_single_turn": "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images",
    "_get_per_token_logps_and_entropies": (
        "self, model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, "
        "compute_aux_loss, pixel_values, image_grid_thw, num_images, pixel_attention_mask, spatial_shapes, "
        "num_tiles, image_sizes, token_type_ids, mm_token_type_ids, image_position_ids"
    ),
    "_get_train_sampler": "self, dataset",
    "_prepare_inputs": "self, generation_batch",
    "create_model_card": "self, model_name, dataset_name, tags",
    "get_batch_samples": "self, epoch_iterator, num_batches, device",
    "training_step": "self, model, inputs, num_items_in_batch",
}
SFT = {
    "_get_train_sampler": "self, train_dataset",
    "compute_loss": "self, model, inputs, return_outputs, num_items_in_batch",
    "create_model_card": "self, model_name, dataset_name, tags",
    "evaluate": "self, eval_dataset, ignore_keys, metric_key_prefix",
}
TRAINER = {
    "_load_best_model": "self",
    "_load_from_checkpoint": "self, resume_from_checkpoint, model",
    "_save_checkpoint": "self, model, trial",
}
OVERRIDDEN = {GRPOTrainer: GRPO, SFTTrainer: SFT, Trainer: TRAINER}
OURS = {
    GRPOTrainer: (CGPOTrainer, MeasuredGRPOTrainer),
    SFTTrainer: (LargeSFTTrainer, PolicySFTTrainer),
    Trainer: (WholeCheckpoints,),
}


@pytest.mark.parametrize("package", ["trl 1.16", "transformers 5.23"])
def test_the_version_is_the_one_that_was_read(package: str) -> None:
    name, expected = package.split()
    found = version(name)
    assert found.startswith(f"{expected}."), (
        f"{name} is {found}, and the trainers override internals of {expected}: read what changed in the "
        "methods that this file lists, then change the version here and the bounds in pyproject.toml"
    )


@pytest.mark.parametrize(
    ("base", "name"), [(base, name) for base, methods in OVERRIDDEN.items() for name in methods]
)
def test_a_method_that_is_overridden_has_its_arguments(base: type, name: str) -> None:
    method = getattr(base, name, None)
    assert method is not None, f"{base.__name__}.{name} is gone: its override is never called"
    found = ", ".join(inspect.signature(method).parameters)
    assert found == OVERRIDDEN[base][name], f"{base.__name__}.{name} takes ({found}) now: adapt its override"


@pytest.mark.parametrize("base", OVERRIDDEN)
def test_every_override_is_listed(base: type) -> None:
    overridden = {
        name
        for ours in OURS[base]
        for each in ours.__mro__
        if each.__module__.startswith("saliency_r1.")
        for name, value in vars(each).items()
        if inspect.isfunction(value) and hasattr(base, name) and name != "__init__"
    }
    listed = set(OVERRIDDEN[base]) | (set(TRAINER) if base is not Trainer else set())
    assert overridden <= listed, f"list them: {sorted(overridden - listed)}"


def test_the_sampler_that_is_wrapped_has_what_is_set_in_it() -> None:
    sampler = RepeatSampler(list(range(4)), mini_repeat_count=1, seed=3)
    assert sampler.shuffle
    assert sampler.seed == 3
    orders = [list(OrderOfEpoch(sampler, lambda epoch=epoch: epoch)) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2]
    assert sorted(orders[0]) == [0, 1, 2, 3]
