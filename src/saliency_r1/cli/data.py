"""`saliency-r1 data`: what training reads, made from data sets and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.data_check import check
from saliency_r1.cli.data_masks import masks
from saliency_r1.cli.data_rationales import rationales

app = typer.Typer(no_args_is_help=True, help="Check data sets, and make what training reads of them.")


@app.command()
def tokenizer(
    corpus: Annotated[
        list[Path], typer.Argument(help="Texts: .jsonl of `data sft`, or files of one text a line.")
    ],
    out: Annotated[Path, typer.Option(help="The tokenizer's folder.")] = Path("runs/tokenizer"),
    vocab_size: Annotated[int, typer.Option(min=300, help="Tokens at most.")] = 3072,
) -> None:
    """Learn the nano policy's tokenizer from the texts that it is to read and write."""
    from saliency_r1.nano.tokenizer import train_tokenizer
    from saliency_r1.writing.corpus import read_corpus, tokens_a_word

    texts = list(read_corpus(corpus))
    learned = train_tokenizer(texts, vocab_size)
    learned.save_pretrained(out)
    spent = tokens_a_word(learned, texts)
    print(f"{out}: {len(learned)} tokens from {len(texts)} texts, {spent:.2f} tokens a word")


@app.command()
def sft(
    data: Annotated[
        Path, typer.Option(help="The DUTS folder (DUTS-TR, synsets.json, groups.json), or photos and masks.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of train.jsonl, validation.jsonl, counts.json and composed pictures.")
    ] = Path("runs/sft-data"),
    tasks: Annotated[str, typer.Option(help="Of sod, sis, cosod, with commas between.")] = "sod",
    photos: Annotated[
        list[Path] | None, typer.Option(help="SIS: a COCO json data set of photos; again for another.")
    ] = None,
    scenes: Annotated[int, typer.Option(min=0, help="SIS: composed scenes to train on.")] = 6000,
    parts: Annotated[
        int, typer.Option(min=0, help="SIS: photos of DUTS whose mask's parts are taken for instances.")
    ] = 0,
    draws: Annotated[int, typer.Option(min=0, help="CoSOD: examples of each group of real photos.")] = 16,
    groups: Annotated[int, typer.Option(min=0, help="CoSOD: composed groups to train on.")] = 1000,
    cache: Annotated[Path, typer.Option(help="Where packed photos are kept.")] = Path("cache/duts-tr-256"),
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:WEIGHTS]|FOLDER", help="The frozen segmenter; the embedded one if not given."
        ),
    ] = None,
    variants: Annotated[int, typer.Option(min=1, help="Responses for each photo or scene.")] = 4,
    fast_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of responses without reasoning.")
    ] = 0.25,
    mirror: Annotated[bool, typer.Option(help="Use each training photo mirrored too.")] = True,
    minimum_iou: Annotated[
        float, typer.Option(min=0, max=1, help="An expression must find the true mask this well.")
    ] = 0.7,
    minimum_found: Annotated[
        float, typer.Option(min=0, max=1, help="SIS: share of a picture's instances that must be found so.")
    ] = 1.0,
    minimum_group_iou: Annotated[
        float, typer.Option(min=0, max=1, help="The same for the mean over a group.")
    ] = 0.6,
    limit: Annotated[int | None, typer.Option(min=1, help="Photos of each split for SOD, for a try.")] = None,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
) -> None:
    """Write rationales that lead to true masks; the same call after a kill goes on.

    A tenth as many scenes and groups are made of the validation split, one response each.
    """
    import json
    from collections.abc import Iterable
    from dataclasses import replace
    from functools import partial

    import torch
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.layouts import load_splits
    from saliency_r1.device import choose_device
    from saliency_r1.files import write_bytes_atomic
    from saliency_r1.language.naming import NameBook
    from saliency_r1.segmenters.load_segmenter import load_segmenter
    from saliency_r1.tasks import Task
    from saliency_r1.writing.sft_set import Job, SFTSetting, set_header, write_set
    from saliency_r1.writing.sft_sources import Sources, split_jobs

    asked = tuple(Task.parse(task.strip()) for task in tasks.split(","))
    setting = SFTSetting(variants, fast_share, mirror, minimum_iou, minimum_found, minimum_group_iou, seed)
    frozen = load_segmenter(segmenter, device)
    print(f"The segmenter is {frozen.name}, on {choose_device(device)}.")
    splits = dict(zip(("train", "validation"), load_splits(data), strict=True))
    names = NameBook.from_samples(splits["train"])
    sources = Sources(asked, data, tuple(photos or ()), scenes, draws, groups, cache, out, limit, parts)
    console = Console(stderr=True)

    def progress(jobs: Iterable[Job], title: str) -> Iterable[Job]:
        return track(jobs, title, console=console)

    counts = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        for title, samples in splits.items():
            made = setting if title == "train" else replace(setting, mirror=False, variants=1, fast_share=0.0)
            written = write_set(
                split_jobs(sources, title, samples, frozen, names, made),
                out / f"{title}.jsonl",
                set_header(frozen, data, made),
                track=partial(progress, title=title),
                workers=workers,
            )
            counts[title] = {task.value: count.to_dict() for task, count in written.items()}
    finally:
        torch.set_num_threads(threads)
    text = json.dumps(counts, indent=1)
    write_bytes_atomic(out / "counts.json", text.encode())
    print(text)


@app.command()
def prompts(
    out: Annotated[Path, typer.Argument(help="The JSON lines file to write.")],
    duts: Annotated[
        Path | None, typer.Option(help="The DUTS folder: SOD of its photos, CoSOD of those of one synset.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train or validation; default train of --duts and --photos, and all of --sod."),
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Option(help="SIS: a COCO json data set of photos; again for another.")
    ] = None,
    sod: Annotated[Path | None, typer.Option(help="A folder of photos and masks.")] = None,
    sis: Annotated[Path | None, typer.Option(help="COCO json, or photos and colour instance masks.")] = None,
    cosod: Annotated[Path | None, typer.Option(help="A folder of groups of photos and masks.")] = None,
    each: Annotated[int | None, typer.Option(min=1, help="Questions of each task; all if not given.")] = None,
    group: Annotated[int, typer.Option(min=2, help="Photos of a CoSOD question.")] = 3,
    fast: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the questions that ask for the answer alone.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the groups and the order.")] = 0,
) -> None:
    """Write the questions, with true masks, that `train cgpo` and `train grpo` learn from.

    Photo paths begin in the DUTS folder if that is given, else in the current one; others are absolute.
    """
    from collections import Counter
    from random import Random

    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.duts import load_groups
    from saliency_r1.data.groups import by_group
    from saliency_r1.data.layouts import load_instances, load_maps
    from saliency_r1.data.prompt_examples import write_prompts
    from saliency_r1.data.samples import Sample, spread
    from saliency_r1.data.true_instances import InstanceImage
    from saliency_r1.errors import SaliencyError
    from saliency_r1.scenes.instance_photos import select
    from saliency_r1.tasks import Task
    from saliency_r1.writing.rl_prompts import (
        cosod_prompts,
        sis_prompts,
        sod_prompts,
        spread_groups,
        without_reasoning,
    )

    rng, root = Random(seed), duts or Path()
    maps: list[Sample] = []
    pictures: list[InstanceImage] = []
    groups: dict[str, list[Sample]] = {}
    if duts:
        maps += load_maps(duts, Task.SOD, split or "train")
        groups |= load_groups(duts, maps)
    for folder in photos or ():
        pictures += [image for image, _ in select(folder, split or "train")]
    if sod:
        maps += load_maps(sod, Task.SOD, split)
    if sis:
        pictures += load_instances(sis)
    if cosod:
        groups |= by_group(load_maps(cosod, Task.COSOD))
    chosen = spread(maps, each)
    found = list(track(sod_prompts(chosen, root), "SOD", total=len(chosen), console=Console(stderr=True)))
    found += sis_prompts(spread(pictures, each), root)
    found += cosod_prompts(spread_groups(groups, group, each), root, group, rng)
    if not found:
        raise SaliencyError("no question: give data by --duts, --photos, --sod, --sis or --cosod")
    rng.shuffle(found)
    found = [without_reasoning(example) if rng.random() < fast else example for example in found]
    write_prompts(out, found)
    counts = Counter(str(example.task) for example in found)
    print(f"{out}: " + ", ".join(f"{count} of {task}" for task, count in sorted(counts.items())))


@app.command()
def scenes(
    data: Annotated[Path, typer.Option(help="The DUTS folder, or one of photos and masks.")],
    out: Annotated[
        Path, typer.Option(help="Folder of images, instances.json, expressions.jsonl, sheet.jpg.")
    ] = Path("runs/scenes"),
    split: Annotated[
        str, typer.Option(help="Photos of which split of DUTS-TR: train or validation.")
    ] = "validation",
    count: Annotated[int, typer.Option(min=0, help="Scenes.")] = 500,
    groups: Annotated[
        int, typer.Option(min=0, help="Groups, each with a distractor in every picture, into OUT/groups.")
    ] = 0,
    group_size: Annotated[int, typer.Option(min=2, help="Pictures of a group.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of all choices.")] = 0,
    cache: Annotated[Path, typer.Option(help="Where packed photos are kept.")] = Path("cache/duts-tr-256"),
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; default one a core, 8 at most. They change nothing.")
    ] = None,
) -> None:
    """Compose scenes: foregrounds on other photos, with exact instance masks and referring expressions.

    With --groups also groups that share an object, which something outdoes in every picture.
    """
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.errors import SaliencyError
    from saliency_r1.scenes.scene_set import SceneSet, write_groups, write_scenes
    from saliency_r1.workers import default_workers

    if not count and not groups:
        raise SaliencyError("--count and --groups are both 0: give at least one of them")
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
