"""`saliency-r1 export`: a folder to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def export(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="A model's folder or hub name, a LoRA adapter's folder, or nano."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must be new or empty.")],
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="A nano segmenter to go with it, or nano for the embedded one."),
    ] = None,
    metrics: Annotated[
        list[Path] | None, typer.Option(help="summary.json of `evaluate`, or its folder; again for another.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge a LoRA adapter into its model.")] = False,
    base_model: Annotated[
        str | None, typer.Option(help="The model it was made from; default what adapter or recipe say.")
    ] = None,
    fine_tuned: Annotated[
        bool | None,
        typer.Option(
            "--fine-tuned/--zero-shot",
            help="Whether it knows the response format; default yes for adapters and policies of a run.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, as the hub calls it: apache-2.0.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="What it learnt from, by its hub name; again for another.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Of a weights file at most.")] = "5GB",
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload it too; the token is read from HF_TOKEN."),
    ] = None,
) -> None:
    """Write a model as a folder that from_pretrained and the hub understand: safetensors, processor, card.

    Nothing leaves this machine without --push. Read README.md in the folder first: it holds the commands and
    paths of the runs.
    """
    from saliency_r1.cli.models import set_up_hub

    set_up_hub(online=push is not None or not (policy == "nano" or Path(policy).exists()))

    from saliency_r1.sharing.export import Export
    from saliency_r1.sharing.export import export as write
    from saliency_r1.sharing.hub import check_push
    from saliency_r1.sharing.hub import push as upload

    if push is not None:
        check_push(push)
    folder = write(
        Export(
            policy,
            out,
            segmenter=segmenter,
            merge=merge,
            base_model=base_model,
            fine_tuned=fine_tuned,
            metrics=tuple(metrics or ()),
            licence=licence,
            datasets=tuple(dataset or ()),
            shard_size=shard_size,
        )
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:,.1f} MB; read {folder / 'README.md'} before you share it")
    if push is not None:
        print(upload(folder, push))
