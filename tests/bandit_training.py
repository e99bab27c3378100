"""Policies of a few thousand weights and tasks with known answers, for the tests of reinforcement learning.

Run by one process or several it takes two CGPO steps and writes what came of them:

    python tests/bandit_training.py OUT BASELINE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from saliency_r1.nano.tokenizer import TAGS
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer
from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig

ANSWERS = ("A", "B", "C", "D")
PROMPTS = ("which", "what", "who", "where")
WORDS = ("<pad>", "<end>", *ANSWERS, *PROMPTS, *TAGS)


def tokenizer(*, spaced: bool = False) -> PreTrainedTokenizerFast:
    """One token a word; decoded without spaces unless `spaced`."""
    model = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()
    if not spaced:
        model.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def policy(sharpness: float = 1.0, seed: int = 0) -> Qwen2ForCausalLM:
    """A language model of one layer; the larger `sharpness`, the further from uniform."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.lm_head.weight.data *= sharpness
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    return model


def prompts(count: int) -> Dataset:
    rows = [{"prompt": " ".join(PROMPTS[: 1 + number % 4]), "number": number} for number in range(count)]
    return Dataset.from_list(rows)


def config(output: Path, **changes: Any) -> CGPOConfig:
    values: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return CGPOConfig(**{**values, **changes})


def share_of_a(completions: list[str], **columns: Any) -> list[float]:
    """A reward: how much of the text is the answer "A"."""
    return [text.count("A") / (1 + len(text)) for text in completions]


class FixedCompletions(CGPOTrainer):
    """Writes completions that depend on the prompt alone, so that any number of processes write the same."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *arguments: Any, **options: Any) -> Any:
        self.seen = getattr(self, "seen", [])
        completions = []
        for ids in prompt_ids:
            rng = torch.Generator().manual_seed(sum(ids))
            length = int(torch.randint(2, 6, (), generator=rng))
            completions.append([*torch.randint(2, len(WORDS), (length,), generator=rng).tolist(), 1])
        return completions, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        numbers = torch.tensor([row["number"] for row in inputs])
        self.seen.append(
            (self.accelerator.gather(numbers), self.accelerator.gather(output["advantages"]).clone())
        )
        return output


def two_steps(output: Path, batch: int, baseline: str = "none") -> None:
    """Train, and write the weights, and the advantages of each prompt, to `two_steps.safetensors`."""
    output.mkdir(parents=True, exist_ok=True)
    trainer = FixedCompletions(
        policy(4.0),
        share_of_a,
        config(output, per_device_train_batch_size=batch, gradient_accumulation_steps=2, baseline=baseline),
        train_dataset=prompts(16),
        processing_class=tokenizer(),
    )
    trainer.train()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        values = {f"weight/{name}": value.contiguous() for name, value in model.state_dict().items()}
        values["processes"] = torch.tensor(trainer.accelerator.num_processes)
        values["numbers"] = torch.cat([numbers for numbers, _ in trainer.seen])
        values["advantages"] = torch.cat([advantages for _, advantages in trainer.seen])
        save_file(values, output / "two_steps.safetensors")
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    import os

    two_steps(Path(sys.argv[1]), 8 // int(os.environ.get("WORLD_SIZE", "1")), sys.argv[2])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
