"""CGPO: the advantage against an independent recomputation, fixed points, settings, two processes."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("trl")

from datasets import Dataset

from bandit_training import (
    ANSWERS,
    WORDS,
    FixedCompletions,
    config,
    policy,
    prompts,
    share_of_a,
    tokenizer,
    two_steps,
)
from repository import TESTS
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.processing import NanoImageProcessor, NanoProcessor
from saliency_r1.nano.tokenizer import train_tokenizer
from saliency_r1.policy.confidence import token_pieces
from saliency_r1.training.features import FeatureMemory
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer, answer_tokens, sequence_confidence
from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig
from saliency_r1.training.reinforcement.sampling import SampledLogprobs


def raw_logprobs(
    model: Any, prompt: list[int], completion: list[int], temperature: float, **images: Any
) -> torch.Tensor:
    """Log-probabilities from the logits of one unpadded sequence."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(input_ids=ids, **images).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1)[torch.arange(len(completion)), completion]


def unpadded(output: dict[str, Any], row: int) -> tuple[list[int], list[int]]:
    """Prompt and completion of a row without padding."""
    return tuple(
        output[f"{part}_ids"][row][output[f"{part}_mask"][row].bool()].tolist()
        for part in ("prompt", "completion")
    )


# The advantage.


@pytest.mark.parametrize("changes", [{}, {"num_iterations": 2, "brake": 0.5}])
def test_advantages_equal_an_independent_recomputation(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = policy(sharpness=60)
    plain = copy.deepcopy(model)
    data = prompts(4)
    trainer = CGPOTrainer(
        model,
        share_of_a,
        config(tmp_path, temperature=0.6, **changes),
        train_dataset=data,
        processing_class=tokenizer(),
    )
    trainer.model.train()
    output = trainer._generate_and_score_completions(list(data))
    confidences = []
    for row in range(4):
        prompt, completion = unpadded(output, row)
        reward = share_of_a([tokenizer().decode(completion, skip_special_tokens=True)])[0]
        confidences.append(raw_logprobs(plain, prompt, completion, 0.6).mean().exp().item())
        expected = reward - changes.get("brake", 1.0) * confidences[-1]
        assert output["advantages"][row].item() == pytest.approx(expected, abs=1e-5)
    assert 0.2 < min(confidences) < max(confidences) < 1
    at_one = raw_logprobs(plain, prompt, completion, 1.0).mean().exp().item()
    assert abs(at_one - confidences[-1]) > 1e-2


def test_advantages_with_one_and_two_images(tmp_path: Path) -> None:
    words = train_tokenizer(["What stands out?", "Which do these share?", "the red dog"], 300)
    torch.manual_seed(0)
    model = NanoForImageTextToText(
        NanoConfig(
            text_config={
                "vocab_size": 304,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "pad_token_id": words.pad_token_id,
                "bos_token_id": words.bos_token_id,
                "eos_token_id": words.eos_token_id,
            },
            adapter_layers=0,
            adapter_dropout=0.3,
            image_token_id=words.convert_tokens_to_ids("<image>"),
        )
    )
    model.model.language_model.norm.weight.data *= 30
    plain = copy.deepcopy(model).eval()
    FeatureMemory(model, 2**20)
    processor = NanoProcessor(NanoImageProcessor(), words)
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(3)]
    data = [
        {"prompt": [{"role": "user", "content": "What stands out?"}], "images": photos[:1]},
        {"prompt": [{"role": "user", "content": "Which do these share?"}], "images": photos[1:]},
    ]
    trainer = CGPOTrainer(
        model,
        lambda completions, **_: [0.25] * len(completions),
        config(tmp_path, temperature=0.7, per_device_train_batch_size=2),
        train_dataset=Dataset.from_dict({"prompt": ["x"] * 2}),
        processing_class=processor,
    )
    trainer.model.train()
    output = trainer._generate_and_score_completions(data)
    recorded = trainer._sampled
    assert recorded is not None
    for row, item in enumerate(data):
        prompt, completion = unpadded(output, row)
        assert prompt.count(model.config.image_token_id) == 64 * len(item["images"])
        pixels = processor.image_processor(item["images"], return_tensors="pt")["pixel_values"]
        expected = raw_logprobs(plain, prompt, completion, 0.7, pixel_values=pixels)
        assert output["advantages"][row].item() == pytest.approx(
            0.25 - expected.mean().exp().item(), abs=1e-5
        )
    trainer._sampled = None
    in_one_pass = trainer._logprobs(output) * output["completion_mask"]
    assert torch.allclose(in_one_pass, recorded, atol=1e-4)


def test_recorded_logprobs_stop_at_the_end_of_each_completion() -> None:
    model = policy(sharpness=20).eval()
    ids = torch.tensor([[6, 7], [0, 8]])
    mask = (ids > 0).long()
    torch.manual_seed(1)
    with SampledLogprobs(model, 0.5) as recorded:
        output = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=0.5, top_k=0, max_new_tokens=5
        )[:, 2:].tolist()
    for cut in (output, [output[0], output[1][:2]], [output[0][:1], output[1][:3]]):
        logprobs = recorded.of(cut)
        assert logprobs is not None
        assert logprobs.shape == (2, max(map(len, cut)))
        for row, (prompt, completion) in enumerate(zip(([6, 7], [8]), cut, strict=True)):
            expected = raw_logprobs(model, prompt, completion, 0.5).float()
            assert torch.allclose(logprobs[row, : len(completion)], expected, atol=1e-5)
            assert not logprobs[row, len(completion) :].any()
    assert recorded.of([[2]]) is None
    assert not model.lm_head._forward_hooks


def test_the_confidence_of_the_answer_equals_a_sum_by_hand() -> None:
    texts = ["<think> A </think> <answer> <rg> B C </rg> </answer>", "<think> D </think> <answer> </answer>"]
    ids = [[WORDS.index(word) for word in text.split()] for text in texts]
    logprobs = torch.full((2, 9), -9.0)
    logprobs[0, 5:7] = torch.tensor([-0.5, -0.1])
    logprobs[1, :5] = torch.tensor([-0.1, -0.2, -0.3, -0.4, -0.5])
    marks = answer_tokens(ids, tokenizer())
    assert [WORDS[token] for token, inside in zip(ids[0], marks[0], strict=True) if inside] == ["B", "C"]
    assert all(marks[1])
    chosen = torch.zeros(2, 9)
    for row, inside in enumerate(marks):
        chosen[row, : len(inside)] = torch.tensor(inside)
    expected = [math.exp((-0.5 - 0.1) / 2), math.exp(-(0.1 + 0.2 + 0.3 + 0.4 + 0.5) / 5)]
    assert sequence_confidence(logprobs, chosen).tolist() == pytest.approx(expected)
    assert sequence_confidence(logprobs[:, :0], chosen[:, :0]).tolist() == [0, 0]


def test_the_trainer_takes_the_answers_tokens(tmp_path: Path) -> None:
    text = "<think> A </think> <answer> <rg> B C </rg> </answer> <end>"
    completion = [WORDS.index(word) for word in text.split()]
    model = policy(sharpness=30)
    plain, data = copy.deepcopy(model), prompts(2)
    settings = config(tmp_path, confidence="answer")
    trainer = CGPOTrainer(model, share_of_a, settings, train_dataset=data, processing_class=tokenizer())
    trainer.model.train()
    trainer._generate_single_turn = lambda prompt_ids, *_: ([completion] * len(prompt_ids), None)
    output = trainer._generate_and_score_completions(list(data))
    for row in range(2):
        prompt, _ = unpadded(output, row)
        logprobs = raw_logprobs(plain, prompt, completion, 1.0)
        expected = share_of_a([text.removesuffix("<end>").replace(" ", "")])[0] - math.exp(
            (logprobs[5] + logprobs[6]) / 2
        )
        assert output["advantages"][row].item() == pytest.approx(expected, abs=1e-5)


def test_pieces_of_a_tokenizer_that_joins_words() -> None:
    ids = [WORDS.index(word) for word in ("<rg>", "A", "B", "</rg>", "<end>")]
    assert token_pieces(tokenizer(), ids) == ["<rg>", "A", "B", "</rg>", ""]
    assert token_pieces(tokenizer(spaced=True), ids) == ["<rg>", " A", " B", " </rg>", ""]


def test_without_confidence_it_is_reinforce(tmp_path: Path) -> None:
    for changes in ({"confidence": "none"}, {"brake": 0.0}):
        settings = config(tmp_path, **changes)
        trainer = FixedCompletions(
            policy(), share_of_a, settings, train_dataset=prompts(4), processing_class=tokenizer()
        )
        trainer.model.train()
        output = trainer._generate_and_score_completions(list(prompts(4)))
        texts = [tokenizer().decode(unpadded(output, row)[1], skip_special_tokens=True) for row in range(4)]
        assert output["advantages"].tolist() == pytest.approx(share_of_a(texts))
        assert ("confidence/mean" in trainer._metrics["train"]) == (changes.get("confidence") != "none")


def test_rewards_that_are_missing_take_no_part(tmp_path: Path) -> None:
    def first(completions: list[str], **_: Any) -> list[float | None]:
        return [None, math.nan, math.inf, 0.5]

    def second(completions: list[str], **_: Any) -> list[float | None]:
        return [None, 1.0, None, 0.9]

    trainer = FixedCompletions(
        policy(),
        [first, second],
        config(tmp_path, reward_weights=[0.25, 0.75], confidence="none"),
        train_dataset=prompts(4),
        processing_class=tokenizer(),
    )
    trainer.model.train()
    output = trainer._generate_and_score_completions(list(prompts(4)))
    assert output["advantages"].tolist() == pytest.approx([0, 1, 0, 0.8])
    metrics = trainer._metrics["train"]
    assert metrics["unjudged"] == [0.5]
    assert metrics["advantage/mean"] == [pytest.approx(0.9)]


# Fixed points (paper.md: sparsemax of r / lambda).


def settle(tmp_path: Path, rewards: tuple[float, ...], weight: float, steps: int) -> dict[str, float]:
    """The probabilities of the answers after training on a choice of one token."""
    worth = dict(zip(ANSWERS, rewards, strict=True))
    model = policy(sharpness=3)
    trainer = CGPOTrainer(
        model,
        lambda completions, **_: [worth.get(text.strip(), 0.0) for text in completions],
        config(
            tmp_path,
            max_completion_length=1,
            max_steps=steps,
            per_device_train_batch_size=256,
            optim="adamw_torch",
            learning_rate=0.02,
            lr_scheduler_type="linear",
            brake=weight,
            logging_steps=1000,
        ),
        train_dataset=Dataset.from_list([{"prompt": "which"}] * 256),
        processing_class=tokenizer(),
    )
    trainer.train()
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([[WORDS.index("which")]])).logits[0, -1]
    return dict(zip(WORDS, logits.softmax(-1).tolist(), strict=True))


def test_one_good_answer_ends_with_confidence_equal_to_reward(tmp_path: Path) -> None:
    found = settle(tmp_path, (1, 0, 0, 0), 1.0, 100)
    assert max(found, key=found.__getitem__) == "A"
    assert abs(found["A"] - 1) < 0.1


def test_answers_of_graded_worth_end_at_the_sparsemax(tmp_path: Path) -> None:
    found = settle(tmp_path, (1, 0.8, 0.5, 0), 1.0, 200)
    for answer, expected in zip(ANSWERS, (0.567, 0.367, 0.067, 0), strict=True):
        assert abs(found[answer] - expected) < 0.05


def test_the_weight_of_the_confidence_is_a_dial(tmp_path: Path) -> None:
    # sparsemax of (1, .8, .5, 0) / .4: the second answer keeps (1 - .5) / 2, the others nothing.
    found = settle(tmp_path, (1, 0.8, 0.5, 0), 0.4, 150)
    for answer, expected in zip(ANSWERS, (0.75, 0.25, 0, 0), strict=True):
        assert abs(found[answer] - expected) < 0.07


# Settings.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "batch"}, "baseline is 'batch': choose one of none, task, prompt"),
        ({"confidence": "mean"}, "confidence is 'mean': choose one of all, answer, none"),
        ({"brake": -1.0}, "brake is -1.0: choose 0 or more"),
        ({"num_generations": 8}, "num_generations is 8 .* one completion a prompt"),
        ({"top_p": 0.9}, "top_p is 0.9: .* set it to 1.0"),
        ({"top_k": 50}, "top_k is 50: .* set it to 0"),
        ({"min_p": 0.1}, "min_p is 0.1"),
        ({"temperature": 0.0}, "temperature is 0.0: choose a number over 0"),
        ({"scale_rewards": "group"}, "scale_rewards is 'group': CGPO has no groups"),
        ({"num_iterations": 3, "save_strategy": "steps", "save_steps": 4}, "choose a multiple of 3"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)


def test_one_prompt_a_step_and_any_number_of_them_are_allowed(tmp_path: Path) -> None:
    for batch in (1, 3):
        made = config(tmp_path, per_device_train_batch_size=batch)
        assert (made.num_generations, made.generation_batch_size) == (1, batch)
        assert type(made.num_generations) is int


def test_reward_weights_must_add_up_to_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reward_weights are \[1.0, 1.0\] for 2 .* such as 1/2 each"):
        CGPOTrainer(policy(), [share_of_a] * 2, config(tmp_path))
    with pytest.raises(ValueError, match="args is a str: CGPOTrainer needs a CGPOConfig"):
        CGPOTrainer(policy(), share_of_a, "x")  # type: ignore[arg-type]


# Several processes.


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "prompt"])
def test_two_processes_give_the_same_advantages_and_update_as_one(tmp_path: Path, baseline: str) -> None:
    script = str(TESTS / "bandit_training.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, script, str(tmp_path / "two"), baseline], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    two_steps(tmp_path / "one", 8, baseline)
    alone, both = (load_file(tmp_path / name / "two_steps.safetensors") for name in ("one", "two"))
    assert (int(alone["processes"]), int(both["processes"])) == (1, 2)
    steps = []
    for found in (alone, both):
        numbers, advantages = found["numbers"].view(2, 16), found["advantages"].view(2, 16)
        assert all(sorted(step.tolist()) == list(range(16)) for step in numbers)
        steps.append(advantages.gather(1, numbers.argsort(1)))
    assert torch.allclose(*steps, atol=1e-5)
    assert not torch.allclose(steps[0][0], steps[0][1], atol=1e-3)  # the first update changed them
    start = policy(4.0).state_dict()
    for name, value in alone.items():
        if name.startswith("weight/"):
            assert torch.allclose(value, both[name], atol=1e-6), name
    assert not torch.allclose(alone["weight/lm_head.weight"], start["lm_head.weight"], atol=1e-3)


def test_the_settings_are_data(tmp_path: Path) -> None:
    assert json.loads(config(tmp_path).to_json_string())["confidence"] == "all"
    assert isinstance(config(tmp_path), CGPOConfig)
