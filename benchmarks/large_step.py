"""What a step of CGPO and of GRPO takes on a large policy: Qwen2.5-VL-3B's sizes, random weights, bf16, LoRA.

    python benchmarks/large_step.py --prompts 8 --tokens 128
    python benchmarks/large_step.py --prompts 8 --reward evf-sam            # with SAM ViT-H as the judge
    python benchmarks/large_step.py --size tiny --prompts 2 --tokens 4      # a try on a CPU

Nothing is downloaded: the weights are random, the tokenizer is learnt from a sentence, the pictures are
noise. So completions run to their limit and the rewards mean nothing; seconds, tokens and memory are those of
the real model. Rewards cost nothing unless `--reward evf-sam` has EVF-SAM look for an expression in every
photo of a batch, at 384 pixels, as the recipes do; it remembers nothing from step to step. The second table
says where the time of a step goes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers import PrinterCallback, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl import GRPOConfig

sys.path.insert(0, str(Path(__file__).parent))

from saliency_r1.nano.tokenizer import IMAGE, train_tokenizer
from saliency_r1.policy.processors import image_only
from saliency_r1.tasks import Task
from saliency_r1.training.adapters import LORA_TARGETS
from saliency_r1.training.reinforcement.cgpo import CGPOTrainer
from saliency_r1.training.reinforcement.cgpo_config import CGPOConfig
from saliency_r1.training.reinforcement.grpo import MeasuredGRPOTrainer

TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{%- endfor %}{% endif %}<|im_end|>\n"
    "{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHASES = ("data", "rollout", "scoring", "reward", "update", "step")

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "3b": (
        {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
    ),
    "tiny": (
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 512,
        },
        {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "fullatt_block_indexes": [1],
        },
    ),
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--size", choices=list(SIZES), default="3b")
    arguments.add_argument("--prompts", type=int, default=8, help="prompts in a step")
    arguments.add_argument("--pass-size", type=int, default=8, help="completions in a gradient pass")
    arguments.add_argument("--tokens", type=int, default=128, help="tokens of a completion")
    arguments.add_argument("--pixels", type=int, default=448, help="side of the pictures")
    arguments.add_argument("--reward", choices=["none", "evf-sam"], default="none")
    arguments.add_argument("--steps", type=int, default=3, help="measured steps, after a warm-up")
    options = arguments.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{options.size}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}\n")
    print("| method | prompts | completions | s a step | rollout | update | tokens | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    phases = [measure(options, group, device) for group in (1, 4, 8)]
    names = [name for name, _ in phases]
    print(f"\n| s a step | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for phase in PHASES:
        cells = (f"{seconds[phase]:.3f} ({seconds[phase] / seconds['step']:.0%})" for _, seconds in phases)
        print(f"| {phase} | {' | '.join(cells)} |")


def measure(options: argparse.Namespace, group: int, device: str) -> tuple[str, dict[str, float]]:
    """Take some steps with a group of completions for each prompt, and print their mean.

    Returns:
        The method, and the seconds of each phase of a step.
    """
    model, processor = build(options.size, device)
    count = options.prompts * group
    rng = np.random.default_rng(0)
    side = options.pixels
    photos = [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(options.prompts)
    ]

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        prompt = [{"role": "user", "content": Task.SOD.spec.prompt()}]
        return {
            "prompt": [prompt for _ in batch["number"]],
            "images": [[photos[number % len(photos)]] for number in batch["number"]],
        }

    data = Dataset.from_dict({"number": list(range(4 * options.prompts))}).with_transform(rows)
    size = min(count, options.pass_size)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": 1 + options.steps,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": count // size,
            "max_completion_length": options.tokens,
            "learning_rate": 1e-5,
            "bf16": device == "cuda",
            "use_cpu": device == "cpu",
            "gradient_checkpointing": device == "cuda",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "log_multimodal": False,
            "disable_tqdm": True,
        }
        kind: Any = CGPOTrainer if group == 1 else MeasuredGRPOTrainer
        config = CGPOConfig(**settings) if group == 1 else GRPOConfig(num_generations=group, **settings)
        trainer = kind(
            model=model,
            reward_funcs=arbitrary if options.reward == "none" else judge(options.size == "tiny", device),
            args=config,
            train_dataset=data,
            processing_class=processor,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"),
        )
        trainer.remove_callback(PrinterCallback)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    logs = [log for log in trainer.state.log_history if "time/step" in log][1 : 1 + options.steps]
    means = {name: float(np.mean([log.get(name, 0.0) for log in logs])) for name in logs[0]}
    seconds = {phase: means.get(f"time/{phase}", 0.0) for phase in PHASES}
    peak = torch.cuda.max_memory_allocated() / 1024**2 if device == "cuda" else float("nan")
    name = "CGPO" if group == 1 else f"GRPO, G = {group}"
    cells = [f"{seconds[phase]:.2f}" for phase in ("step", "rollout", "update")]
    cells += [f"{means['tokens/rollout']:.0f}", f"{peak:.0f}"]
    print(f"| {name} | {options.prompts} | {count} | {' | '.join(cells)} |", flush=True)
    return name, seconds


def judge(tiny: bool, device: str) -> Any:
    """A reward function that has EVF-SAM find an expression in every photo, and compares the masks."""
    from large_predict import evf_sam
    from saliency_r1.data.prompt_examples import PromptExample
    from saliency_r1.data.true_instances import encode
    from saliency_r1.response import Response
    from saliency_r1.rewards.combined import SaliencyReward
    from saliency_r1.rewards.segmenting import CachedSegmenter

    segmenter = evf_sam(tiny, device)
    text = Response("", ("the cup",), Task.SOD.spec.tag).text

    def rewards(completions: list[Any], images: list[list[Image.Image]], **columns: Any) -> list[float]:
        reward = SaliencyReward(CachedSegmenter(segmenter, longest=384))
        asked = []
        for number, (image,) in enumerate(images):
            truth = np.zeros((image.height, image.width), bool)
            truth[image.height // 4 : image.height // 2, number % image.width :] = True
            key = f"{id(image)}.png"
            asked.append(PromptExample(key, Task.SOD, "What?", (key,), ((encode(truth),),)))
        masks = reward([text] * len(asked), asked, images)
        return [(one + other) / 2 for one, other in zip(masks, arbitrary(completions), strict=True)]

    return rewards


def build(size: str, device: str) -> tuple[Any, Any]:
    """The policy of random weights and its processor."""
    tokenizer: Any = train_tokenizer([task.spec.prompt() for task in Task], 400)
    text, vision = SIZES[size]
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections(text)},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(default)
    tokenizer.image_token = IMAGE
    kind = image_only(Qwen2_5_VLProcessor)
    return model, kind(Qwen2VLImageProcessorPil(), tokenizer, chat_template=TEMPLATE)


def sections(text: dict[str, Any]) -> list[int]:
    """How the rotary dimensions of a head divide into time, height and width: 2, 3 and 3 of 8."""
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    return [half // 4, 3 * half // 8, 3 * half // 8]


def arbitrary(completions: list[Any], **columns: Any) -> list[float]:
    """Rewards in [0, 1] that differ and mean nothing."""
    return [zlib.crc32(chat[-1]["content"].encode()) / 2**32 for chat in completions]


if __name__ == "__main__":
    main()
