"""What training on one's own photos brings: every step of docs/own-photos.md, measured, as a Markdown table.

    python benchmarks/own_photos.py --photos ../shared/data/extra/VOC-animals --others \
        --wanted cat,cow,dog,horse,sheep --out runs/own-photos-curve

The own photos are those of a COCO json set that show one of the wanted categories; the mask is of its
instances alone, and the name of the photo begins with the category, so that `synsets.json` can name it. With
`--others` each photo must also show an annotated thing that is not wanted, such as the person beside a dog:
then the owner's idea of what stands out is not the one that the embedded model was trained on.

The models are measured on a fixed set of photos that no training saw, neither this one nor that of the
embedded weights: the fifth that `instance_photos.is_held_out` holds out. The others are taken in the order of
the SHA-1 of their names, so that the 50 pairs are among the 100. Each size has a folder of its own, in which
the commands of the page run as they stand there. The steps of each training are those of the recipe times the
share after the colon in `--pairs`.

Minutes are those of the processor, of all processes of a step. The intervals are those of `saliency-r1
compare`: 95 %, over the photos, paired.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from shutil import copyfile, rmtree

import numpy as np
import yaml
from PIL import Image

from saliency_r1.data.coco_json import find_json, read_coco
from saliency_r1.data.duts import write_synsets
from saliency_r1.data.samples import Synset
from saliency_r1.data.true_instances import InstanceImage, decode
from saliency_r1.errors import SaliencyError
from saliency_r1.evaluation.compare import Difference, compare
from saliency_r1.scenes.instance_photos import category_nouns, fits, is_held_out

ROOT = Path(__file__).resolve().parent.parent
RECIPES = Path("recipes/own-photos")
METRICS = {"mae": "MAE", "iou": "IoU", "s_measure": "S"}
STEPS = (
    ("segmenter", "the segmenter"),
    ("policy", "and the fine-tuned policy"),
    ("after", "and CGPO"),
)
"""The runs of `saliency-r1 evaluate` after each stage, and what the table calls them."""


def own_photos(root: Path, wanted: frozenset[str], others: bool) -> tuple[list[InstanceImage], ...]:
    """The photos to train on and the held-out ones, each in the order of the SHA-1 of their file names.

    Args:
        root: folder of a COCO json set.
        wanted: categories; a photo must show exactly one of them.
        others: whether a photo must also show another category; if not, it must not.

    Raises:
        SaliencyError: if there is no such set, or no such photo.
    """
    path = find_json(root)
    if path is None:
        raise SaliencyError(f"{root}: no COCO json found")
    found = [image for image in read_coco(path) if fits(image) and _is_own(image, wanted, others)]
    if not found:
        raise SaliencyError(f"{root}: no photo shows {', '.join(sorted(wanted))} in this way")
    found.sort(key=lambda image: hashlib.sha1(image.image.name.encode()).hexdigest())
    return tuple(
        [image for image in found if is_held_out(image.image.name) == held] for held in (False, True)
    )


def _is_own(image: InstanceImage, wanted: frozenset[str], others: bool) -> bool:
    shown = {str(instance.category) for instance in image.instances}
    return len(shown & wanted) == 1 and bool(shown - wanted) == others


def write_folder(images: Sequence[InstanceImage], wanted: frozenset[str], folder: Path) -> None:
    """Write photos and masks as docs/own-photos.md describes them, with names."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for image in images:
        own = [instance for instance in image.instances if instance.category in wanted]
        name = f"{own[0].category}_{image.image.stem}"
        copyfile(image.image, folder / "images" / f"{name}{image.image.suffix}")
        mask = np.any([decode(instance.mask) for instance in own], axis=0)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / "masks" / f"{name}.png")
    nouns = {category: category_nouns(category) for category in sorted(wanted)}
    write_synsets(
        folder, {name: Synset(name, name, each.synonyms, each.hypernyms) for name, each in nouns.items()}
    )


def overrides(recipe: str, share: float) -> list[str]:
    """The overrides that take a share of a recipe's steps, with a validation in every quarter of them."""
    values = yaml.safe_load((ROOT / RECIPES / f"{recipe}.yaml").read_text())
    steps = max(1, round(values["max_steps"] * share))
    every = max(1, min(values["validate_every"], steps // 4))
    return [f"max_steps={steps}", f"validate_every={every}", f"save_every={every}"]


def commands(share: float) -> Iterator[tuple[str, str]]:
    """Each command of the page after `saliency-r1`, with the stage that it belongs to."""
    part = {name: " ".join(overrides(name, share)) for name in ("segmenter", "sft", "cgpo")}
    train, segmenter = f"--config {RECIPES}", "--segmenter runs/own-segmenter/final"
    measure = "evaluate sod --data ../held-out"
    yield "check", "data check mine"
    yield "segmenter", "export nano --segmenter nano --out runs/nano"
    yield "segmenter", f"train segmenter {train}/segmenter.yaml data=mine {part['segmenter']}"
    yield "measure", f"{measure} --model nano {segmenter} --out runs/segmenter"
    yield "policy", "data names runs/own-names.json --data mine"
    yield "policy", f"data sft --data mine {segmenter} --out runs/own-data"
    yield "policy", f"train sft {train}/sft.yaml image_root=mine {part['sft']}"
    yield "measure", f"{measure} --model runs/own-sft/policy {segmenter} --out runs/policy"
    yield "CGPO", "data prompts runs/own-prompts/train.jsonl --sod mine --split train"
    yield "CGPO", "data prompts runs/own-prompts/validation.jsonl --sod mine --split validation"
    yield "CGPO", f"train cgpo {train}/cgpo.yaml {part['cgpo']}"
    yield "measure", f"{measure} --model runs/own-cgpo/policy {segmenter} --out runs/after"


def run(command: str, folder: Path) -> float:
    """Run one command of the project in a folder and return the minutes of the processor that it took.

    Raises:
        SaliencyError: if it fails.
    """
    print(f"$ saliency-r1 {command}", file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "saliency_r1", *command.split()],
        cwd=folder,
        env=environment,
        stdout=sys.stderr,
    )
    if done.returncode:
        raise SaliencyError(f"{folder}: `saliency-r1 {command}` ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def measured(images: Sequence[InstanceImage], wanted: frozenset[str], folder: Path, share: float) -> None:
    """Do all steps of the page on these pairs in `folder`; a size that is finished is not done again."""
    if (folder / "minutes.json").is_file():
        return
    rmtree(folder, ignore_errors=True)
    write_folder(images, wanted, folder / "mine")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    minutes: dict[str, float] = {}
    for stage, command in commands(share):
        minutes[stage] = minutes.get(stage, 0.0) + run(command, folder)
    (folder / "minutes.json").write_text(json.dumps(minutes))


def row(title: str, values: Sequence[str]) -> str:
    """A row of the Markdown table."""
    return "| " + " | ".join((title, *values)) + " |"


def number(value: float) -> str:
    """A share with three places, without the zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1)


def cells(found: dict[str, Difference], steps: str) -> list[str]:
    """The cells of a run: each metric with the interval of its difference, and on how many photos S rises."""
    values = [
        f"{number(found[name].second)} ({found[name].low:+.3f} to {found[name].high:+.3f})".replace("0.", ".")
        for name in METRICS
    ]
    of = found["s_measure"]
    return [*values, f"{of.wins} of {of.wins + of.losses + of.ties}", steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of a COCO json set")
    parser.add_argument("--wanted", required=True, help="the categories of the own photos, with commas")
    parser.add_argument("--others", action="store_true", help="photos that also show something else")
    parser.add_argument("--pairs", nargs="+", default=["50:0.25", "100:0.5", "300:1"], help="PAIRS:SHARE")
    parser.add_argument("--held-out", type=int, default=64, help="how many photos are measured at most")
    parser.add_argument("--out", type=Path, default=Path("runs/own-photos-curve"))
    options = parser.parse_args()
    wanted = frozenset(options.wanted.split(","))
    train, held_out = own_photos(options.photos, wanted, options.others)
    held_out = held_out[: options.held_out]
    out = options.out.absolute()
    write_folder(held_out, wanted, out / "held-out")
    if not (out / "runs/before/summary.json").is_file():
        run("evaluate sod --data held-out --model nano --out runs/before", out)
    print(f"{len(train)} photos to train on, {len(held_out)} held out\n")
    print(row("pairs: what is trained", [*METRICS.values(), "S better", "CPU minutes"]))
    print(row("---", ["---"] * (len(METRICS) + 2)))
    first = True
    for pairs, _, share in (each.partition(":") for each in options.pairs):
        count = min(int(pairs), len(train))
        measured(train[:count], wanted, out / str(count), float(share or 1))
        minutes = json.loads((out / str(count) / "minutes.json").read_text())
        spent = list(accumulate(minutes[stage] for stage in ("segmenter", "policy", "CGPO")))
        for (folder, title), so_far in zip(STEPS, spent, strict=True):
            after = compare(out / "runs/before", out / str(count) / "runs" / folder)
            found = {one.metric: one for one in after}
            if first:
                print(row("0: nothing", [*(number(found[name].first) for name in METRICS), "–", "0"]))
                first = False
            print(row(f"{count}: {title}", cells(found, f"{so_far:.1f}")), flush=True)


if __name__ == "__main__":
    try:
        main()
    except SaliencyError as error:
        sys.exit(f"error: {error}")
