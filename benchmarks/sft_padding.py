"""What keeping tasks apart saves of the tokens with which large fine-tuning pads its batches.

    python benchmarks/sft_padding.py runs/sft-data/train.jsonl --image-root ../shared/data/DUTS

A batch is as long as its longest example. The lengths are those of a Qwen2.5-VL policy: a photo has a token
for each 28x28 pixels, after its sides are rounded to multiples of 28 and it is brought within --max-pixels;
words are counted with the nano policy's tokenizer. Both orders are drawn for the same examples: the usual
random one, and `tasks_apart`. The text of photos that differ in shape still pads a little.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from saliency_r1.nano import POLICY_FOLDER
from saliency_r1.training.fine_tuning.task_batches import KindsApart
from saliency_r1.writing.sft_set import SFTExample, read_examples

CELL, LEAST = 28, 56 * 56


def main() -> None:
    """Print a table of both orders."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("examples", type=Path, help="as `saliency-r1 data sft` writes them")
    arguments.add_argument("--image-root", type=Path, required=True)
    arguments.add_argument("--batch", type=int, default=4, help="examples of a pass, on all processes")
    arguments.add_argument("--epochs", type=int, default=5)
    arguments.add_argument("--max-pixels", type=int, default=1280 * 28 * 28)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    examples = read_examples(options.examples)
    lengths = np.array(lengths_of(examples, options.image_root, options.max_pixels))
    random = np.random.default_rng(options.seed)
    kinds = [(example.task, len(example.images)) for example in examples]
    apart = KindsApart(kinds, options.batch, options.seed)
    padded = {"mixed": 0, "tasks apart": 0}
    for epoch in range(options.epochs):
        apart.set_epoch(epoch)
        padded["mixed"] += padding(lengths, random.permutation(len(lengths)), options.batch)
        padded["tasks apart"] += padding(lengths, list(apart), options.batch)
    total = int(lengths.sum()) * options.epochs
    print(f"{len(examples)} examples in batches of {options.batch}, {options.epochs} epochs\n")
    for kind in sorted(set(kinds)):
        mean = lengths[[each == kind for each in kinds]].mean()
        print(f"- {kind[0]} with {kind[1]} photos: {kinds.count(kind)} examples of {mean:.0f} tokens")
    print("\n| order | tokens | of these padding | padding against mixed |\n|---|---|---|---|")
    for order, count in padded.items():
        print(
            f"| {order} | {total + count} | {count / (total + count):.3f} | {count / padded['mixed']:.3f} |"
        )


def lengths_of(examples: Iterable[SFTExample], root: Path, most: int) -> list[int]:
    """The tokens of each example, photos included."""
    tokenizer = AutoTokenizer.from_pretrained(POLICY_FOLDER)
    known: dict[str, int] = {}
    lengths = []
    for example in examples:
        for image in example.images:
            if image not in known:
                with Image.open(root / image) as photo:
                    height, width = smart_resize(*photo.size[::-1], CELL, LEAST, most)
                known[image] = height * width // CELL**2
        text = tokenizer(example.prompt + example.response, add_special_tokens=False)["input_ids"]
        lengths.append(len(text) + sum(known[image] for image in example.images))
    return lengths


def padding(lengths: np.ndarray, order: Sequence[int] | np.ndarray, batch: int) -> int:
    """The tokens that fill batches of examples in this order up to their longest ones."""
    ordered = lengths[np.asarray(order)]
    groups = (ordered[start : start + batch] for start in range(0, len(ordered), batch))
    return int(sum(group.max() * len(group) - group.sum() for group in groups))


if __name__ == "__main__":
    main()
