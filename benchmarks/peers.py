"""The embedded model beside other salient object detection networks on the same photos, as a Markdown table.

    python benchmarks/peers.py --photos PHOTOS --masks MASKS --onnx u2netp.onnx --onnx u2net.onnx
    python benchmarks/peers.py --animals VOC-animals --animals Animals7 --onnx u2netp.onnx --onnx u2net.onnx

The rows: ours end to end by text with reasoning and without (`--fast`), and each ONNX network with U²-Net's
settings (see `saliency-r1 data masks`). Each is a process of its own that holds its model. Every photo goes
to all of them in turn, so that whatever else runs on the machine slows all of them alike.

Seconds: the median from the photo's file to the mask at the photo's size, after a warm-up, with the same
number of threads. Memory: the peak of the process. Weights: the size of all their files. The boundary IoU is
of boundaries as wide as .02 of a photo's diagonal.

`--animals` takes COCO json sets: their held-out photos (a fifth, by the hash of the file name) with exactly
one instance, an animal of over 10 % of the photo, whose mask is the truth. U²-Net was trained on DUTS-TR, so
its numbers on photos of DUTS-TR say nothing. There an answer is named rightly if it is the animal's category,
or a kind of it ("the pug" for a dog); the other networks name nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from saliency_r1.errors import SaliencyError

# The measured processes import this file too: what only the parent needs is imported where it is used, so
# that it does not count as their memory.

ANIMALS = frozenset(
    {"bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"}
    | {"monkey", "otter", "turtle", "tiger", "deer"}
)
Pair = tuple[Path, np.ndarray, str | None]
"""A photo's file, its true mask, and the name of what it shows, if that is known."""
LEAST_AREA = 0.1
COLUMNS = (
    *("method", "S", "MAE", "max F", "mean E", "IoU", "boundary IoU"),
    *("seconds", "times first peer", "memory", "weights", "named rightly"),
)
WARM_UP = 3


@dataclass(frozen=True)
class Method:
    """What a process is to load.

    Attributes:
        title: what the table calls it.
        onnx: a network's file; None for ours.
        reasoning: of ours.
        policy, segmenter: of ours; the embedded ones for None.
    """

    title: str
    onnx: Path | None = None
    reasoning: bool = True
    policy: str | None = None
    segmenter: str | None = None


class Measured:
    """A method in a process of its own, and what it did so far.

    Args:
        method: what it is to load.
        threads: of the CPU.

    Attributes:
        megabytes: of its weights.
        metrics: of its masks so far.
        seconds: that each photo took.
        right: whether each photo was named rightly, where its name is known.

    Raises:
        SaliencyError: if it cannot be loaded.
    """

    def __init__(self, method: Method, threads: int) -> None:
        from saliency_r1.evaluation.sod import SodMetrics

        self.method, self.metrics = method, SodMetrics()
        self.seconds: list[float] = []
        self.right: list[bool] = []
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(method, threads, theirs))
        self._process.start()
        theirs.close()
        self.megabytes: float = self._answer()

    def run(self, photo: Path) -> tuple[np.ndarray, str | None, float]:
        """The mask of a photo, what it shows in words, and the seconds it took."""
        self._connection.send(photo)
        return self._answer()

    def end(self) -> float:
        """End the process and return its peak memory in GiB."""
        self._connection.send(None)
        peak = self._answer()
        self._process.join()
        return peak

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            answer = f"{self.method.title}: its process ended"
        if isinstance(answer, str):
            raise SaliencyError(answer)
        return answer


def serve(method: Method, threads: int, connection: Connection) -> None:
    """Load a method, say the megabytes of its weights, answer photos; None ends with the peak memory."""
    try:
        find, megabytes = load(method, threads)
        connection.send(megabytes)
        while (photo := connection.recv()) is not None:
            start = perf_counter()
            mask, words = find(photo)
            connection.send((mask, words, perf_counter() - start))
        connection.send(peak_gib())
    except SaliencyError as error:
        connection.send(str(error))


def load(method: Method, threads: int) -> tuple[Callable[[Path], tuple[np.ndarray, str | None]], float]:
    """What makes a mask and words of a photo's file, and the megabytes of its weights."""
    if method.onnx is not None:
        from saliency_r1.data.teacher.network import Teacher
        from saliency_r1.images import load_image

        teacher = Teacher(method.onnx, threads=threads)
        return lambda photo: (teacher(load_image(photo)), None), method.onnx.stat().st_size / 1e6

    import torch

    from saliency_r1 import SaliencyPipeline
    from saliency_r1.nano import POLICY_FOLDER

    torch.set_num_threads(threads)
    pipe = SaliencyPipeline.from_pretrained(method.policy, method.segmenter)
    policy = Path(method.policy) if method.policy else POLICY_FOLDER
    segmenter = Path(method.segmenter) if method.segmenter else POLICY_FOLDER.with_name("segmenter")
    kinds = ("*.safetensors", "*.onnx")  # the graphs hold some of the weights a second time
    files = [file for folder in (policy, segmenter) for kind in kinds for file in folder.glob(kind)]
    size = sum(file.stat().st_size for file in files) / 1e6

    def find(photo: Path) -> tuple[np.ndarray, str]:
        result = pipe(photo, reasoning=method.reasoning)
        return result.mask, " ".join(result.expressions)

    return find, size


def peak_gib() -> float:
    """This process's largest resident memory, in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage would count the process that this one was split from
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    import resource

    units = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units


def pairs_of(photos: Path, masks: Path) -> list[Pair]:
    """The photos of a folder and their masks, bool (H, W), by stem; without names."""
    from saliency_r1.data.folders import pictures_by_stem
    from saliency_r1.data.mask_files import load_mask
    from saliency_r1.data.pairs import check_complete

    images, truths = pictures_by_stem(photos, "photos"), pictures_by_stem(masks, "masks")
    check_complete(photos, images, masks, truths)
    return [(path, load_mask(truths[stem]), None) for stem, path in images.items()]


def single_animals(roots: Sequence[Path]) -> list[Pair]:
    """The held-out photos of one animal of over a tenth of the photo, its mask, bool (H, W), and its name."""
    from saliency_r1.data.coco_json import find_json, load_json, read_coco
    from saliency_r1.data.true_instances import decode
    from saliency_r1.scenes.instance_photos import is_held_out

    found = []
    for root in roots:
        path = find_json(root)
        if path is None:
            raise SaliencyError(
                f"{root}: no COCO json found, expected one in it or in its folder annotations"
            )
        content = load_json(path)
        names = {each["id"]: str(each["name"]).lower() for each in content.get("categories", ())}
        category = {each["image_id"]: names.get(each.get("category_id")) for each in content["annotations"]}
        for image in read_coco(path):
            if not is_held_out(image.image.name) or category.get(image.key) not in ANIMALS:
                continue
            if len(image.instances) != 1 or image.instances[0].crowd:
                continue
            mask = decode(image.instances[0].mask)
            if mask.mean() > LEAST_AREA:
                found.append((image.image, mask, category[image.key]))
    return found


def right_names(name: str) -> frozenset[str]:
    """The words that name a category rightly: its own and those of its kinds."""
    from saliency_r1.scenes.instance_photos import category_nouns
    from saliency_r1.writing.name_sources import embedded_tree

    nouns, tree = category_nouns(name), embedded_tree()
    own = nouns.names[0]
    chains = [tree.chains[number] for number in tree.below.get(own, ())]
    kinds = (word for chain in chains for word in chain[: chain.index(own)])
    return frozenset((*nouns.names, *nouns.synonyms, *kinds))


def measure(methods: Sequence[Method], pairs: Sequence[Pair], threads: int) -> None:
    """Run all methods on every photo in turn and print the table."""
    from saliency_r1.language.accepted_names import is_named

    accepted = {name: right_names(name) for _, _, name in pairs if name is not None}
    started: list[Measured] = []
    peaks: list[float] = []
    try:
        for method in methods:
            started.append(Measured(method, threads))
        for each in started:
            for _ in range(WARM_UP):
                each.run(pairs[0][0])
        for photo, truth, name in track(pairs, "photos", console=Console(stderr=True)):
            for each in started:
                mask, words, seconds = each.run(photo)
                if mask.shape != truth.shape:
                    raise SaliencyError(f"{photo}: a mask of {truth.shape}, but the photo is {mask.shape}")
                each.metrics.update(mask, truth)
                each.seconds.append(seconds)
                if name is not None and words is not None:
                    each.right.append(is_named(words, accepted[name]))
    finally:
        for each in started:
            with suppress(SaliencyError, OSError):
                peaks.append(each.end())
    peers = [median(each.seconds) for each in started if each.method.onnx]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for each, memory in zip(started, peaks, strict=True):
        result, seconds = each.metrics.compute(), median(each.seconds)
        scores = (
            *(result.s_measure, result.mae, result.max_f, result.mean_e),
            *(result.iou, result.boundary_iou),
        )
        cells = [each.method.title, *(f"{value:.4f}" for value in scores), f"{seconds:.3f}"]
        cells += [
            f"{seconds / peers[0]:.2f}" if peers else "–",
            f"{memory:.2f} GiB",
            f"{each.megabytes:.1f} MB",
            f"{np.mean(each.right):.3f}" if each.right else "–",
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos")
    parser.add_argument("--masks", type=Path, help="the folder of their masks, by stem")
    parser.add_argument(
        "--animals", type=Path, action="append", metavar="DATA", help="COCO JSON set; repeatable"
    )
    parser.add_argument(
        "--onnx", type=Path, action="append", default=[], help="another network; may be repeated"
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each method (default 2)")
    parser.add_argument("--policy", help="a policy folder instead of the embedded one")
    parser.add_argument("--segmenter", help="a segmenter folder instead of the embedded one")
    options = parser.parse_args()
    if (options.photos is None) != (options.masks is None) or bool(options.photos) == bool(options.animals):
        parser.error("expected --photos with --masks, or --animals")
    ours = {"policy": options.policy, "segmenter": options.segmenter}
    methods = [
        Method("ours, with reasoning", **ours),
        Method("ours, --fast", reasoning=False, **ours),
        *(Method(path.stem, path) for path in options.onnx),
    ]
    try:
        pairs = (
            single_animals(options.animals) if options.animals else pairs_of(options.photos, options.masks)
        )
        pairs = pairs[:: options.every]
        if not pairs:
            raise SaliencyError("no photo is left to measure on")
        print(f"{len(pairs)} photos, {options.threads} threads\n")
        measure(methods, pairs, options.threads)
    except SaliencyError as error:
        sys.exit(f"peers.py: {error}")


if __name__ == "__main__":
    main()
