"""What one photo takes of large models: Qwen2.5-VL-3B's sizes, then EVF-SAM's with SAM ViT-H; random weights.

    python benchmarks/large_predict.py                       # 3B and ViT-H in bf16 on a GPU
    python benchmarks/large_predict.py --size tiny           # a try on a CPU

Nothing is downloaded: weights are random, the photo is 640x480. Seconds and memory are those of the real
models, the answers and masks mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from large_step import SIZES, build
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.segmenters.beit3 import LARGE
from saliency_r1.segmenters.evf_sam import EvfSamSegmenter
from saliency_r1.segmenters.evf_sam_model import HUGE, EvfSam
from saliency_r1.tasks import Task
from tiny_evf_sam import BEIT3, SAM, tokenizer_of

EXPRESSIONS = ("the cup", "the spoon on the left", "the saucer under the cup")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="3b")
    parser.add_argument("--tokens", type=int, default=96, help="to write")
    parser.add_argument("--repeats", type=int, default=3, help="the least counts, after one to warm up")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    photo = Image.fromarray(data.coffee()).resize((640, 480))
    print(f"{options.size}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}\n")
    print("| what | seconds | peak GB |\n|---|---|---|")

    model: Any
    model, processor = build(options.size, device)
    model.generation_config.eos_token_id = model.config.text_config.vocab_size - 1  # is hardly ever written
    policy: Any = TransformersPolicy(model, processor, options.size, max_pixels=640 * 480)
    show(
        f"policy: one 640x480 photo, {options.tokens} new tokens",
        lambda: policy.respond([[photo]], Task.SOD, max_new_tokens=options.tokens),
        options.repeats,
        device,
    )
    policy = model = processor = None  # makes room
    segmenter = evf_sam(options.size == "tiny", device)
    show("EVF-SAM: encode", lambda: segmenter.encode(photo), options.repeats, device)
    show(
        "EVF-SAM: encode and 3 expressions",
        lambda: segmenter.segment(segmenter.encode(photo), EXPRESSIONS),
        options.repeats,
        device,
    )


def evf_sam(tiny: bool, device: str) -> EvfSamSegmenter:
    """The segmenter with random weights, in bf16 on a GPU."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = EvfSam(BEIT3, SAM) if tiny else EvfSam(LARGE, HUGE)
    torch.set_default_dtype(default)
    words = dict.fromkeys(" ".join(EXPRESSIONS).split())
    return EvfSamSegmenter(model.eval().requires_grad_(False), tokenizer_of(words), device)


def show(what: str, call: Callable[[], Any], repeats: int, device: str) -> None:
    """Print a row of the table."""
    call()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(perf_counter() - start)
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if device == "cuda" else "not measured"
    print(f"| {what} | {min(taken):.3f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
