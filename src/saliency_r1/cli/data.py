"""`saliency-r1 data`: what training reads, made from data sets and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saliency_r1.cli.data_check import check

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
    from saliency_r1.data.corpus import read_corpus, tokens_a_word
    from saliency_r1.nano.tokenizer import train_tokenizer

    texts = list(read_corpus(corpus))
    learned = train_tokenizer(texts, vocab_size)
    learned.save_pretrained(out)
    spent = tokens_a_word(learned, texts)
    print(f"{out}: {len(learned)} tokens from {len(texts)} texts, {spent:.2f} tokens a word")


@app.command()
def sft(
    data: Annotated[Path, typer.Option(help="The DUTS folder: DUTS-TR and synsets.json.")],
    out: Annotated[Path, typer.Option(help="Folder of train.jsonl, validation.jsonl, counts.json.")] = Path(
        "runs/sft-data"
    ),
    segmenter: Annotated[
        Path | None, typer.Option(help="Folder of the frozen segmenter; the embedded one if not given.")
    ] = None,
    variants: Annotated[int, typer.Option(min=1, help="Responses for each photo.")] = 4,
    fast_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of responses without reasoning.")
    ] = 0.25,
    mirror: Annotated[bool, typer.Option(help="Use each training photo mirrored too.")] = True,
    minimum_iou: Annotated[
        float, typer.Option(min=0, max=1, help="An expression must find the true mask this well.")
    ] = 0.7,
    limit: Annotated[int | None, typer.Option(min=1, help="Photos of each split, for a try.")] = None,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
) -> None:
    """Write rationales of DUTS-TR photos that lead to their masks; the same call after a kill goes on."""
    import json
    from collections.abc import Iterable
    from dataclasses import replace
    from functools import partial

    import torch
    from rich.console import Console
    from rich.progress import track

    from saliency_r1.data.duts import load_duts, split
    from saliency_r1.data.naming import NameBook
    from saliency_r1.data.samples import Sample
    from saliency_r1.data.sft import SFTSetting, build_sft
    from saliency_r1.files import write_bytes_atomic
    from saliency_r1.segmenters.nano import NanoSegmenter

    setting = SFTSetting(variants, fast_share, mirror, minimum_iou, seed)
    frozen = NanoSegmenter.from_pretrained(segmenter, device=device)
    print(f"The segmenter runs on {frozen.device}.")
    train, validation = split(load_duts(data))
    names = NameBook.from_samples(train)
    console = Console(stderr=True)

    def progress(samples: Iterable[Sample], title: str) -> Iterable[Sample]:
        return track(samples, title, console=console)

    counts = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        for title, samples in (("train", train), ("validation", validation)):
            made = setting if title == "train" else replace(setting, mirror=False, variants=1, fast_share=0.0)
            counts[title] = build_sft(
                samples[:: max(1, len(samples) // (limit or len(samples)))][:limit],
                frozen,
                out / f"{title}.jsonl",
                root=data,
                names=names,
                setting=made,
                track=partial(progress, title=title),
                workers=workers,
            ).to_dict()
    finally:
        torch.set_num_threads(threads)
    text = json.dumps(counts, indent=1)
    write_bytes_atomic(out / "counts.json", text.encode())
    print(text)


app.command()(check)
