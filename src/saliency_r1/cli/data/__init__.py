"""`saliency-r1 data`: make what training reads from data sets and texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.data.check import check
from saliency_r1.cli.data.masks import masks
from saliency_r1.cli.data.rationales import rationales
from saliency_r1.cli.options import (
    CacheOption,
    FrozenSegmenterOption,
    InstancePhotosOption,
    SeedOption,
    spread,
)

app = typer.Typer(no_args_is_help=True, help="Check data sets, and make training data from them.")


@app.command()
def tokenizer(
    corpus: Annotated[
        list[Path], typer.Argument(help="Texts: .jsonl files of `data sft`, or files with one text per line.")
    ],
    out: Annotated[Path, typer.Option(help="The tokenizer's folder.")] = Path("runs/tokenizer"),
    names: Annotated[
        Path | None, typer.Option(help="Names of `data names`: each of their words becomes a token.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(min=300, help="Maximum number of tokens.")] = 3072,
) -> None:
    """Learn the nano policy's tokenizer from the texts that it will read and write."""
    from saliency_r1.nano.name_tree import NameTree
    from saliency_r1.nano.tokenizer import train_tokenizer
    from saliency_r1.writing.corpus import read_corpus, tokens_a_word, worded

    texts = list(read_corpus(corpus))
    texts += worded(NameTree.load(names).words) if names is not None else []
    learned = train_tokenizer(texts, vocab_size)
    learned.save_pretrained(out)
    spent = tokens_a_word(learned, texts)
    print(f"{out}: {len(learned)} tokens from {len(texts)} texts, {spent:.2f} tokens a word")


@app.command()
def names(
    out: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    imagenet: Annotated[
        Path | None, typer.Option(help="imagenet1k.json: the classes of ImageNet-1k with their hypernyms.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A DUTS folder, or photos and masks with a synsets.json.")
    ] = None,
    photos: InstancePhotosOption = None,
) -> None:
    """Collect the names that the nano policy can read: those of ImageNet, of synsets and of categories.

    Without --imagenet the names of the embedded policy are extended.
    """
    from saliency_r1.writing.name_sources import make_tree

    tree = make_tree(imagenet, data, photos or ())
    tree.save(out)
    print(f"{out}: {len(tree.classes)} classes, {len(tree.words)} words")


@dataclass(frozen=True)
class SettingFlags:
    """`SFTSetting` as options of a command."""

    variants: Annotated[int, typer.Option(min=1, help="Number of responses for each photo or scene.")] = 4
    fast_share: Annotated[float, typer.Option(min=0, max=1, help="Share of responses without reasoning.")] = (
        0.25
    )
    mirror: Annotated[bool, typer.Option(help="Also use each training photo mirrored.")] = True
    minimum_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Least IoU with which an expression must find the true mask.")
    ] = 0.7
    minimum_found: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="For sis: share of a picture's instances that must be found like that."
        ),
    ] = 1.0
    minimum_group_iou: Annotated[float, typer.Option(min=0, max=1, help="Least mean IoU over a group.")] = 0.6
    seed: SeedOption = 0


@app.command()
@spread
def sft(
    *,
    data: Annotated[
        Path, typer.Option(help="The DUTS folder (DUTS-TR, synsets.json, groups.json), or photos and masks.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for train.jsonl, validation.jsonl, counts.json and composed pictures."),
    ] = Path("runs/sft-data"),
    tasks: Annotated[str, typer.Option(help="Tasks, a comma-separated list from sod,sis,cosod.")] = "sod",
    photos: InstancePhotosOption = None,
    scenes: Annotated[
        int, typer.Option(min=0, help="For sis: number of composed scenes to train on.")
    ] = 6000,
    parts: Annotated[
        int,
        typer.Option(min=0, help="For sis: number of DUTS photos whose mask parts are used as instances."),
    ] = 0,
    draws: Annotated[int, typer.Option(min=0, help="For cosod: examples from each group of photos.")] = 16,
    groups: Annotated[int, typer.Option(min=0, help="For cosod: number of composed groups.")] = 1000,
    cache: CacheOption = Path("cache/duts-tr-256"),
    segmenter: FrozenSegmenterOption = None,
    names: Annotated[
        Path | None,
        typer.Option(help="Names of `data names`; default those of the embedded policy and the data."),
    ] = None,
    made: SettingFlags,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of photos of each split for sod, for a trial.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Number of threads.")] = 2,
) -> None:
    """Write rationales whose expressions lead to the true masks. The same command continues after a kill.

    The validation split gets a tenth as many scenes and groups, with one response each.
    """
    from collections.abc import Iterable

    from rich.console import Console
    from rich.progress import track

    from saliency_r1.device import choose_device
    from saliency_r1.nano.name_tree import NameTree
    from saliency_r1.segmenters.load_segmenter import load_segmenter
    from saliency_r1.tasks import Task
    from saliency_r1.writing.name_sources import make_tree
    from saliency_r1.writing.sft_set import Job, SFTSetting
    from saliency_r1.writing.sft_sources import Sources, write_splits

    asked = tuple(Task.parse(task.strip()) for task in tasks.split(","))
    setting = SFTSetting(**asdict(made))
    frozen = load_segmenter(segmenter, device)
    print(f"The segmenter is {frozen.name}, on {choose_device(device)}.")
    console = Console(stderr=True)

    def progress(jobs: Iterable[Job], title: str) -> Iterable[Job]:
        return track(jobs, title, console=console)

    tree = make_tree(None, data, photos or ()) if names is None else NameTree.load(names)
    sources = Sources(asked, data, tuple(photos or ()), scenes, draws, groups, cache, out, tree, limit, parts)
    counts = write_splits(sources, frozen, setting, track=progress, workers=workers)
    for split, of_tasks in counts.items():
        for task, count in of_tasks.items():
            outcomes = ", ".join(f"{number} {outcome}" for outcome, number in count["outcomes"].items())
            print(
                f"{split}, {task}: {count['examples']} examples ({count['fast']} without reasoning) of "
                f"{count['photos']} pictures, {count['unused']} of them unused; rationales: {outcomes}"
            )
    print(f"The examples are in {out}")


@app.command()
def prompts(
    out: Annotated[Path, typer.Argument(help="The JSON lines file to write.")],
    duts: Annotated[
        Path | None, typer.Option(help="The DUTS folder: its photos for sod, photos of one synset for cosod.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train or validation. Default: train for --duts and --photos, all for --sod."),
    ] = None,
    photos: InstancePhotosOption = None,
    sod: Annotated[Path | None, typer.Option(help="A folder of photos and masks.")] = None,
    sis: Annotated[Path | None, typer.Option(help="COCO JSON, or photos and colour instance masks.")] = None,
    cosod: Annotated[Path | None, typer.Option(help="A folder of groups of photos and masks.")] = None,
    each: Annotated[
        int | None, typer.Option(min=1, help="Number of questions of each task. Default: all.")
    ] = None,
    group: Annotated[int, typer.Option(min=2, help="Number of photos in a question of cosod.")] = 3,
    fast: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the questions without reasoning.")
    ] = 0.0,
    seed: SeedOption = 0,
) -> None:
    """Write the questions, with true masks, that `train cgpo` and `train grpo` learn from.

    Paths are relative to the DUTS folder, or to the current folder without --duts; others are absolute.
    """
    from collections import Counter

    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.prompt_examples import write_prompts
    from saliency_r1.writing.rl_prompts import PromptSources, make_prompts

    sources = PromptSources(duts, tuple(photos or ()), sod, sis, cosod, split, each, group, fast, seed)
    console = Console(stderr=True)
    found = make_prompts(sources, track=lambda made, count: track(made, "SOD", total=count, console=console))
    write_prompts(out, found)
    counts = Counter(str(example.task) for example in found)
    print(f"{out}: " + ", ".join(f"{count} of {task}" for task, count in sorted(counts.items())))


@app.command()
def scenes(
    data: Annotated[Path, typer.Option(help="The DUTS folder, or one of photos and masks.")],
    out: Annotated[
        Path, typer.Option(help="Folder for images, instances.json, expressions.jsonl and sheet.jpg.")
    ] = Path("runs/scenes"),
    split: Annotated[str, typer.Option(help="Split of DUTS-TR: train or validation.")] = "validation",
    count: Annotated[int, typer.Option(min=0, help="Number of scenes.")] = 500,
    groups: Annotated[
        int,
        typer.Option(
            min=0, help="Number of groups for OUT/groups; every picture of a group has a distractor."
        ),
    ] = 0,
    group_size: Annotated[int, typer.Option(min=2, help="Number of pictures in a group.")] = 6,
    seed: SeedOption = 0,
    cache: CacheOption = Path("cache/duts-tr-256"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of processes. Default: one for each core, at most 8. The result is the same."
        ),
    ] = None,
) -> None:
    """Compose scenes: foregrounds on other photos, with exact instance masks and referring expressions.

    --groups also composes groups that share an object, with a stronger distractor in every picture.
    """
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.errors import SaliencyError
    from saliency_r1.scenes.scene_set import SceneSet, write_groups, write_scenes
    from saliency_r1.workers import default_workers

    if not count and not groups:
        raise SaliencyError("--count and --groups are both 0: set at least one of them")
    which = SceneSet(str(data), split, seed, str(cache))
    workers = default_workers() if workers is None else workers
    if count:
        made = write_scenes(which, count, out, workers)
        for _ in track(made, "composing", total=count, console=Console(stderr=True)):
            pass
        print(f"{out}: {count} scenes of the {split} split, seed {seed}; look at {out / 'sheet.jpg'}")
    if groups:
        made = write_groups(which, groups, group_size, out / "groups", workers)
        for _ in track(made, "composing groups", total=groups, console=Console(stderr=True)):
            pass
        print(f"{out / 'groups'}: {groups} groups of {group_size} of the {split} split, seed {seed}")


app.command()(rationales)
app.command()(check)
app.command()(masks)
