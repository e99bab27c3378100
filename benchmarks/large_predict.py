"""Where the time of a photo goes in large models: Qwen2.5-VL-3B's sizes, then EVF-SAM's with SAM ViT-H.

    python benchmarks/large_predict.py                       # 3B and ViT-H in bf16 on a GPU
    python benchmarks/large_predict.py --compile             # the image encoder compiled too, some minutes
    python benchmarks/large_predict.py --size tiny           # a try on a CPU

Nothing is downloaded: weights are random, the photo is 640x480. Seconds and memory are those of the real
models, the answers and masks mean nothing. The last table adds one photo up from its parts, and the batch
that costs least a photo.
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
from saliency_r1.segmenters.evf_sam.beit3 import LARGE
from saliency_r1.segmenters.evf_sam.model import HUGE, EvfSam
from saliency_r1.segmenters.evf_sam.segmenter import EvfSamSegmenter
from saliency_r1.tasks import Task
from tiny_evf_sam import BEIT3, SAM, tokenizer_of

EXPRESSIONS = ("the cup", "the spoon on the left", "the saucer under the cup")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="3b")
    parser.add_argument("--tokens", type=int, default=96, help="number of generated tokens")
    parser.add_argument("--photos", type=int, default=8, help="photos in a batch")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs after a warm-up; the smallest time counts"
    )
    parser.add_argument("--compile", action="store_true", help="also with the image encoder compiled")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    photo = Image.fromarray(data.coffee()).resize((640, 480))
    print(f"{options.size}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}\n")
    print("| what | seconds | peak GB |\n|---|---|---|")

    def row(what: str, call: Callable[[], Any]) -> float:
        return show(what, call, options.repeats, device)

    model: Any
    model, processor = build(options.size, device)
    model.generation_config.eos_token_id = model.config.text_config.vocab_size - 1  # is hardly ever written
    policy: Any = TransformersPolicy(model, processor, options.size, max_pixels=640 * 480)

    def write(photos: int, tokens: int) -> Any:
        return policy.respond([[photo]] * photos, Task.SOD, max_new_tokens=tokens)

    prompt = Task.SOD.spec.prompt()
    parts = {
        "policy: photo to tensors": row("policy: photo to tensors", lambda: policy._inputs([[photo]], prompt))
    }
    first = row("policy: first token", lambda: write(1, 1))
    whole = row(f"policy: {options.tokens} tokens", lambda: write(1, options.tokens))
    batch = row(
        f"policy: {options.photos} photos at once, {options.tokens} tokens each",
        lambda: write(options.photos, options.tokens),
    )
    parts["policy: photo and question read"] = first - parts["policy: photo to tensors"]
    parts["policy: tokens written"] = whole - first
    policy = model = processor = None  # makes room
    segmenter = evf_sam(options.size == "tiny", device)
    name = "EVF-SAM: photo encoded"
    parts[name] = row(name, lambda: segmenter.encode(photo))
    encoded = segmenter.encode(photo)
    name = "EVF-SAM: 3 expressions, masks on the CPU"
    parts[name] = row(name, lambda: segmenter.segment(encoded, EXPRESSIONS))
    row("EVF-SAM: 3 expressions, masks on the device", lambda: on_device(segmenter, encoded))
    several = row(
        f"EVF-SAM: {options.photos} photos encoded at once",
        lambda: segmenter.encode_many([photo] * options.photos),
    )
    if options.compile:
        segmenter.compile()
        row("EVF-SAM: photo encoded, compiled", lambda: segmenter.encode(photo))
    total = sum(parts.values())
    print("\n| one photo | seconds | share |\n|---|---|---|")
    for name, seconds in parts.items():
        print(f"| {name} | {seconds:.3f} | {seconds / total:.0%} |")
    print(f"| in all | {total:.3f} | 100% |")
    alone = parts["EVF-SAM: photo encoded"]
    print(
        f"\nOf a batch of {options.photos}, seconds a photo: policy {batch / options.photos:.3f} (alone "
        f"{whole:.3f}), photo encoded {several / options.photos:.3f} (alone {alone:.3f})."
    )


def on_device(segmenter: EvfSamSegmenter, encoded: Any) -> Any:
    """The masks, left where the segmenter runs."""
    return segmenter.find_many([encoded], [EXPRESSIONS], [False])


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


def show(what: str, call: Callable[[], Any], repeats: int, device: str) -> float:
    """Print a row of the table; the least seconds."""
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
    return min(taken)


if __name__ == "__main__":
    main()
