"""Whether masks that follow the photo's edges are better than interpolated ones: prints a Markdown table.

    python benchmarks/upsampling.py --data ../shared/data/DUTS --photos 200

The segmenter is asked for "the salient object"; its logits are brought to the photo's size by interpolation
and by `saliency_r1.upsampling`. DUTS-TR: held-out photos, longest side 320. Large: stamps of Tux Paint,
enlarged on pieces of such photos (see benchmarks/cutouts.py), whose true alpha gives a truth at several
megapixels. Settings are chosen with `--choosing`, on DUTS-TR's training photos and on other stamps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track

from cutouts import STAMPS, compose, grounds, stamps
from saliency_r1.data.duts import load_duts, split
from saliency_r1.data.samples import Sample
from saliency_r1.images import load_image
from saliency_r1.masks import iou
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.segmenters.torch_upsampling import upsample
from saliency_r1.upsampling import guide_of

NARROW = 0.005


def boundary_iou(first: np.ndarray, second: np.ndarray, share: float) -> float:
    """Boundary IoU (Cheng et al., CVPR 2021), of bands whose width is a share of the diagonal."""
    kernel = np.ones((3, 3), np.uint8)
    reach = max(1, round(share * float(np.hypot(*first.shape))))
    bands = []
    for mask in (first, second):
        padded = np.pad(mask.astype(np.uint8), 1)
        bands.append(mask & (cv2.erode(padded, kernel, iterations=reach)[1:-1, 1:-1] == 0))
    return iou(bands[0], bands[1])


def labelled(samples: Sequence[Sample]) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Photos and their true masks."""
    for sample in samples:
        assert sample.mask is not None
        with Image.open(sample.mask) as mask:
            yield load_image(sample.image), np.asarray(mask.convert("L")) > 127


def large(
    samples: Sequence[Sample], choosing: bool, count: int, seed: int
) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Large photos of stamps and their true masks."""
    rng = np.random.default_rng(seed)
    pieces = list(grounds(samples))
    paths = stamps(STAMPS)
    apart = len(paths) // 4
    for number, path in enumerate((paths[:apart] if choosing else paths[apart:])[:count]):
        made = compose(path, pieces[number % len(pieces)], rng, enlarge=4.0)
        yield made.photo, made.alpha >= 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DUTS folder")
    parser.add_argument("--photos", type=int, default=200, help="number of photos of DUTS-TR")
    parser.add_argument("--large", type=int, default=60, help="number of large photos")
    parser.add_argument("--choosing", action="store_true", help="use photos on which settings were chosen")
    parser.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, held_out = split(load_duts(options.data))
    samples = train if options.choosing else held_out
    samples = samples[:: max(1, len(samples) // options.photos)][: options.photos]
    segmenter = NanoSegmenter.from_pretrained(options.segmenter, device="cpu")
    print("| photos | masks | MAE | IoU | boundary IoU, 2 % | the same, .5 % | s of the processor |")
    print("|---|---|---|---|---|---|---|")
    for title, photos in (
        (f"{len(samples)} of DUTS-TR", labelled(samples)),
        (f"{options.large} large", large(held_out, options.choosing, options.large, options.seed)),
    ):
        rows: dict[str, list[tuple[float, ...]]] = {"interpolated": [], "along the photo's edges": []}
        for photo, truth in track(photos, title):
            logits = segmenter.logits(segmenter.encode(photo), "the salient object")
            for name, scores in rows.items():
                start = process_time()
                if name == "interpolated":
                    found = F.interpolate(logits, size=truth.shape, mode="bilinear").sigmoid_()
                else:
                    found = upsample(logits, torch.from_numpy(guide_of(photo)), truth.shape)
                seconds = process_time() - start
                mask = found[0, 0].numpy()
                binary = mask >= 0.5
                boundaries = (boundary_iou(binary, truth, share) for share in (0.02, NARROW))
                scores.append((float(np.abs(mask - truth).mean()), iou(binary, truth), *boundaries, seconds))
        for name, scores in rows.items():
            mae, whole, wide, narrow, seconds = np.mean(scores, axis=0)
            print(
                f"| {title} | {name} | {mae:.4f} | {whole:.4f} | {wide:.4f} | {narrow:.4f} | {seconds:.3f} |"
            )


if __name__ == "__main__":
    main()
