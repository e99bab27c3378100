"""`saliency-r1 export`: write a model as a folder to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


PolicyArgument = Annotated[
    str,
    typer.Argument(metavar="POLICY", help="A model's folder or hub name, a LoRA adapter's folder, or nano."),
]
OutOption = Annotated[Path, typer.Option(help="The folder to write. It must be new or empty.")]
SegmenterOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A nano segmenter to include; nano is the embedded one."),
]
MetricsOption = Annotated[
    list[Path] | None, typer.Option(help="summary.json of `evaluate`, or its folder. May be repeated.")
]
MergeOption = Annotated[bool, typer.Option("--merge", help="Merge a LoRA adapter into its model.")]
BaseModelOption = Annotated[
    str | None,
    typer.Option(help="The model that it was made from. Default: as adapter or recipe says."),
]
FineTunedOption = Annotated[
    bool | None,
    typer.Option(
        "--fine-tuned/--zero-shot",
        help="Whether it knows the response format. Default: yes for adapters and for policies of a run.",
    ),
]
LicenceOption = Annotated[
    str | None, typer.Option(help="Licence of the weights, by its name on the hub, such as apache-2.0.")
]
DatasetOption = Annotated[
    list[str] | None, typer.Option(help="Data set that it was trained on, by its hub name. May be repeated.")
]
ShardSizeOption = Annotated[str, typer.Option(help="Maximum size of one weights file.")]
PushOption = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="Upload it too. The token is read from HF_TOKEN."),
]


@app.command()
def export(
    policy: PolicyArgument,
    out: OutOption,
    segmenter: SegmenterOption = None,
    metrics: MetricsOption = None,
    merge: MergeOption = False,
    base_model: BaseModelOption = None,
    fine_tuned: FineTunedOption = None,
    licence: LicenceOption = None,
    dataset: DatasetOption = None,
    shard_size: ShardSizeOption = "5GB",
    push: PushOption = None,
) -> None:
    """Write a model as a folder that from_pretrained and the hub can load: safetensors, processor, card.

    Nothing is uploaded without --push. Read README.md in the folder before you share it: it contains the
    commands and paths of your runs.
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
