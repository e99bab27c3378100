"""How good cut-outs are, on photos whose true alpha and colours are known: prints a Markdown table.

    apt-get install tuxpaint-stamps-default
    python benchmarks/cutouts.py --data ../shared/data/DUTS --onnx u2netp.onnx

The photographic stamps of Tux Paint have an alpha of their own. Each is laid on a piece of a held-out photo
of DUTS-TR in which nothing is salient, and the pipeline (`--fast`) cuts it out again. The rows: the
segmenter's logits interpolated, as alpha with the photo's colours, as cut-outs were made at first; the mask
in their place; `SaliencyResult.cutout`; the same with matting; and the map of an ONNX network as alpha, with
the photo's colours.

SAD is the mean over the photos of the summed absolute error of alpha, in thousands; MSE is of alpha too. The
colour error is CIEDE2000, the mean over the pixels where the true alpha is neither 0 nor 1 and the cut-out
shows anything. Settings are chosen with `--choosing`, on stamps that the table leaves out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from skimage.color import deltaE_ciede2000, rgb2lab

from saliency_r1 import SaliencyPipeline, SaliencyResult
from saliency_r1.data.duts import load_duts, split
from saliency_r1.data.samples import Sample
from saliency_r1.segmenters.base import Segmenter
from saliency_r1.segmenters.nano import NanoSegmenter

STAMPS = Path("/usr/share/tuxpaint/stamps")
COLOURS, LONGEST = 4000, (180, 800)
DRAWN = (
    *("symbols/", "cartoon", "town/houses/", "seasonal/halloween/", "seasonal/easter/", "space/"),
    *("naturalforces/", "/tux.", "/ladybug.", "/spider_", "/wings.", "/button.", "/pineapple.", "/snowman."),
    *("/Santa.", "/terex.", "_mirror"),
)
"""Parts of the paths of stamps that are drawings, or mirror another."""
PEER_SIDE = 320
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Composite:
    """A photo with a stamp in it.

    Attributes:
        name: of the stamp.
        photo: RGB.
        alpha: the true alpha, float32 (H, W), 0 to 1.
        colour: the stamp's own colours, uint8 (H, W, 3).
    """

    name: str
    photo: Image.Image
    alpha: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Errors:
    """The errors of a cut-out: SAD in thousands, MSE, and CIEDE2000 on soft edges (NaN where none shows)."""

    sad: float
    mse: float
    colour: float


def stamps(folder: Path) -> list[Path]:
    """The stamps that are photos with a soft alpha, sorted by the hash of their name."""
    found = []
    for path in sorted(folder.rglob("*.png")):
        place = path.relative_to(folder).as_posix()
        if any(part in place for part in DRAWN):
            continue
        with Image.open(path) as image:
            if not LONGEST[0] <= max(image.size) or not image.has_transparency_data:
                continue
            pixels = np.asarray(image.convert("RGBA"))
        alpha = pixels[..., 3]
        colours = np.unique(pixels[alpha > 128][:, :3].astype(np.int64) @ [65536, 256, 1])
        soft = np.mean((alpha > 0) & (alpha < 255))
        if len(colours) > COLOURS and soft > 0.004:
            found.append(path)
    if not found:
        raise SystemExit(f"{folder} holds no stamps: apt-get install tuxpaint-stamps-default")
    return sorted(found, key=lambda path: hashlib.sha1(path.name.encode()).hexdigest())


def grounds(samples: Sequence[Sample]) -> Iterator[Image.Image]:
    """Pieces of photos without a salient pixel, at least 30 % of the photo each."""
    for sample in samples:
        assert sample.mask is not None
        with Image.open(sample.mask) as mask:
            empty = np.asarray(mask.convert("L")) < 128
        box = largest_box(empty)
        width, height = box[2] - box[0], box[3] - box[1]
        if width * height >= 0.3 * empty.size and 0.5 <= width / height <= 2:
            with Image.open(sample.image) as image:
                yield image.convert("RGB").crop(box)


def largest_box(free: np.ndarray) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) in which all of a bool map (H, W) is true."""
    best, found = 0, (0, 0, 1, 1)
    heights = np.zeros(free.shape[1], int)
    for row in range(len(free)):
        heights = np.where(free[row], heights + 1, 0)
        stack: list[int] = []
        for column in range(len(heights) + 1):
            height = heights[column] if column < len(heights) else 0
            while stack and heights[stack[-1]] >= height:
                tall = int(heights[stack.pop()])
                left = stack[-1] + 1 if stack else 0
                if tall * (column - left) > best:
                    best, found = tall * (column - left), (left, row + 1 - tall, column, row + 1)
            stack.append(column)
    return found


def compose(path: Path, ground: Image.Image, rng: np.random.Generator, enlarge: float = 1.0) -> Composite:
    """Lay a stamp on a ground that is resized around it; the stamp covers 35 to 75 % of the longer side."""
    with Image.open(path) as image:
        stamp = image.convert("RGBA").convert("RGBa")  # resampled with alpha
    scale = min(1.0, LONGEST[1] / max(stamp.size)) * enlarge
    if scale != 1:
        size = round(stamp.width * scale), round(stamp.height * scale)
        stamp = stamp.resize(size, Image.Resampling.BICUBIC)
    stamp = stamp.convert("RGBA")
    long = max(max(stamp.size) / rng.uniform(0.35, 0.75), 1.1 * stamp.width, 1.1 * stamp.height)
    share = long / max(ground.size)
    width = max(round(ground.width * share), round(1.1 * stamp.width))
    height = max(round(ground.height * share), round(1.1 * stamp.height))
    photo = np.asarray(ground.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    left = int(rng.integers(0, width - stamp.width + 1))
    top = int(rng.integers(0, height - stamp.height + 1))
    sheet = Image.new("RGBA", (width, height))
    sheet.paste(stamp, (left, top))
    pixels = np.asarray(sheet)
    alpha = pixels[..., 3].astype(np.float32) / 255
    mixed = alpha[..., None] * pixels[..., :3] + (1 - alpha[..., None]) * photo
    return Composite(path.stem, Image.fromarray(np.rint(mixed).astype(np.uint8)), alpha, pixels[..., :3])


def composites(data: Path, folder: Path, choosing: bool, count: int, seed: int) -> Iterator[Composite]:
    """The photos, each stamp on a ground of its own. A quarter of the stamps is for choosing settings."""
    _, held_out = split(load_duts(data))
    rng = np.random.default_rng(seed)
    pieces = list(grounds(held_out))
    paths = stamps(folder)
    apart = len(paths) // 4
    paths = paths[:apart] if choosing else paths[apart:]
    order = rng.permutation(len(pieces))
    for number, path in enumerate(paths[:count]):
        yield compose(path, pieces[order[number % len(pieces)]], rng)


def errors(cutout: np.ndarray, truth: Composite) -> Errors:
    """Judge a cut-out, RGBA uint8 (H, W, 4)."""
    alpha = cutout[..., 3].astype(np.float32) / 255
    difference = np.abs(alpha - truth.alpha)
    seen = (truth.alpha > 0) & (truth.alpha < 1) & (alpha > 0)
    colour = float("nan")
    if seen.any():
        found, true = (rgb2lab(pixels[seen][None] / 255.0) for pixels in (cutout[..., :3], truth.colour))
        colour = float(deltaE_ciede2000(found, true).mean())
    return Errors(float(difference.sum()) / 1000, float((difference**2).mean()), colour)


def with_alpha(photo: Image.Image, alpha: np.ndarray) -> np.ndarray:
    """The photo's own colours with an alpha, float (H, W) in [0, 1]."""
    return np.dstack([np.asarray(photo), np.rint(alpha * 255).astype(np.uint8)])


def interpolated(segmenter: Segmenter, photo: Image.Image, result: SaliencyResult) -> np.ndarray:
    """The mask of a result's expression without following the photo's edges, float32 (H, W) in [0, 1]."""
    if not isinstance(segmenter, NanoSegmenter) or not result.expressions:
        return result.mask
    logits = segmenter.logits(segmenter.encode(photo), result.expressions[0])
    size = photo.height, photo.width
    return F.interpolate(logits, size=size, mode="bilinear").sigmoid_()[0, 0].numpy()


def peer(path: Path) -> Callable[[Image.Image], np.ndarray]:
    """What makes a saliency map, float32 (H, W) in [0, 1], with a network such as U²-Net."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(photo: Image.Image) -> np.ndarray:
        small = np.asarray(photo.resize((PEER_SIDE, PEER_SIDE), Image.Resampling.LANCZOS), np.float32)
        pixels = ((small / max(small.max(), 1e-6) - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
        found = session.run(None, {session.get_inputs()[0].name: pixels})[0].squeeze()
        low, high = found.min(), found.max()
        grey = np.rint((found - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
        large = Image.fromarray(grey).resize(photo.size, Image.Resampling.LANCZOS)
        return np.asarray(large) / np.float32(255)

    return predict


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DUTS folder")
    parser.add_argument("--stamps", type=Path, default=STAMPS, help="the folder of Tux Paint's stamps")
    parser.add_argument(
        "--onnx", type=Path, action="append", default=[], help="another network; may be repeated"
    )
    parser.add_argument("--photos", type=int, default=1000, help="maximum number")
    parser.add_argument(
        "--choosing", action="store_true", help="use the stamps on which settings were chosen"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", help="a policy folder instead of the embedded one")
    parser.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    parser.add_argument("--save", type=Path, help="a folder for the cut-outs and their photos")
    options = parser.parse_args()
    pipe = SaliencyPipeline.from_pretrained(options.policy, options.segmenter, runtime="torch")
    peers = {path.stem: peer(path) for path in options.onnx}
    rows: dict[str, list[Errors]] = {}
    seconds: dict[str, list[float]] = {}
    photos = list(composites(options.data, options.stamps, options.choosing, options.photos, options.seed))
    for photo in track(photos, "cutting out"):
        result = pipe(photo.photo, reasoning=False)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "interpolated, the photo's colours": partial(
                with_alpha, photo.photo, interpolated(pipe.segmenter, photo.photo, result)
            ),
            "the mask as alpha, the photo's colours": partial(with_alpha, photo.photo, result.mask),
            "cut-out": lambda: np.asarray(result.cutout()),  # noqa: B023
            "cut-out with matting": lambda: np.asarray(result.cutout(matting=True)),  # noqa: B023
        }
        for name, predict in peers.items():
            ways[f"{name}, the photo's colours"] = partial(with_alpha, photo.photo, predict(photo.photo))
        for name, way in ways.items():
            start = process_time()
            pixels = way()
            seconds.setdefault(name, []).append(process_time() - start)
            rows.setdefault(name, []).append(errors(pixels, photo))
            if options.save is not None:
                options.save.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(options.save / f"{photo.name} {name.split(',')[0]}.png")
    megapixels = np.mean([photo.alpha.size for photo in photos]) / 1e6
    print(f"{pipe.name}, {len(photos)} photos of {megapixels:.2f} megapixels in the mean\n")
    print(
        "| cut-out | SAD | median SAD | MSE | colour error | s of the processor |\n|---|---|---|---|---|---|"
    )
    for name, row in rows.items():
        sad, mse, colour = np.array([(one.sad, one.mse, one.colour) for one in row]).T
        values = f"{sad.mean():.3f} | {np.median(sad):.3f} | {mse.mean():.5f} | {np.nanmean(colour):.2f}"
        print(f"| {name} | {values} | {np.mean(seconds[name]):.3f} |")


if __name__ == "__main__":
    main()
