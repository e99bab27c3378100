"""What several expressions of one photo cost each segmenter: prints a Markdown table.

    python benchmarks/segmenter_expressions.py --expressions 8 --repeats 3

The large segmenters are small here: their real architectures with random weights, as deep as published,
about an eighth as wide, reading smaller photos. The ratio of the two times carries over, not the times. Both
are measured in turn within one run, in seconds of the processor, so that what else runs on the machine counts
little; each is the least of its repeats.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

TEXTS = (
    "the cup",
    "the small brown cup on the left",
    "a ball",
    "the dog behind it",
    "two cats in front of the cup",
    "the red ball",
    "it",
    "the left dog",
)


def small_segmenters(root: Path) -> dict[str, Callable[[], str]]:
    """What makes the weights of each segmenter, and returns what `--segmenter` takes for them."""
    import tiny_segmenters as tiny

    def made(save: Callable[..., Path], name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else save(folder, deep=True)

    def grounded(name: str, save: Callable[..., Path]) -> str:
        detector = made(tiny.save_grounding_dino, "detector")
        return f"{name}:{detector},{made(save, name)}"

    return {
        "nano": lambda: "nano",
        "clipseg": lambda: f"clipseg:{made(tiny.save_clipseg, 'clipseg')}",
        "grounded-sam": lambda: grounded("grounded-sam", tiny.save_sam),
        "grounded-sam2": lambda: grounded("grounded-sam2", tiny.save_sam2),
        "sam3": lambda: f"sam3:{made(tiny.save_sam3, 'sam3')}",
        "evf-sam": lambda: f"evf-sam:{made(tiny.save_evf_sam, 'evf-sam')}",
    }


def measure(segmenter: Any, photo: Any, texts: list[str], repeats: int) -> tuple[float, float, float]:
    """Seconds of one call for all texts, of a call for each, and by how much their masks differ at most."""
    import numpy as np

    def together() -> Any:
        return segmenter.segment(segmenter.encode(photo), texts).probabilities

    def apart() -> Any:
        masks = [segmenter.segment(segmenter.encode(photo), [text]).probabilities for text in texts]
        return np.concatenate(masks)

    together()  # the first call allocates
    seconds: dict[Callable[[], Any], list[float]] = {together: [], apart: []}
    masks = {}
    for _ in range(repeats):
        for call, taken in seconds.items():
            start = process_time()
            masks[call] = call()
            taken.append(process_time() - start)
    difference = float(np.abs(masks[together] - masks[apart]).max())
    return min(seconds[together]), min(seconds[apart]), difference


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--expressions", type=int, default=8, help="expressions of one photo, at most 8 (default 8)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds of both ways (default 3)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    import torch
    from PIL import Image
    from skimage import data
    from transformers.utils import logging

    from saliency_r1.segmenters.load_segmenter import load_segmenter

    logging.disable_progress_bar()
    photo = Image.fromarray(data.coffee()).resize((400, 300))
    texts = list(TEXTS[: options.expressions])
    threads = torch.get_num_threads()
    print(f"{len(texts)} expressions of one 400x300 photo, {options.device}, {threads} threads\n")
    print("| segmenter | one call | a call each | ratio | largest difference |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in small_segmenters(Path(folder)).items():
            segmenter = load_segmenter(make(), options.device)
            one, each, difference = measure(segmenter, photo, texts, options.repeats)
            print(
                f"| {name} | {one:.2f} s | {each:.2f} s | {one / each:.2f} | {difference:.0e} |", flush=True
            )


if __name__ == "__main__":
    main()
