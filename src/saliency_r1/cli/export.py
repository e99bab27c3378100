"""`saliency-r1 export`: write a model as a folder to share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from saliency_r1.cli.options import spread

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class ExportFlags:
    """The options that `Export` takes as they are."""

    segmenter: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="A nano segmenter to include; nano is the embedded one."),
    ] = None
    metrics: Annotated[
        list[Path] | None, typer.Option(help="summary.json of `evaluate`, or its folder. May be repeated.")
    ] = None
    merge: Annotated[bool, typer.Option("--merge", help="Merge a LoRA adapter into its model.")] = False
    base_model: Annotated[
        str | None,
        typer.Option(help="The model that it was made from. Default: as adapter or recipe says."),
    ] = None
    fine_tuned: Annotated[
        bool | None,
        typer.Option(
            "--fine-tuned/--zero-shot",
            help="Whether it knows the response format. Default: yes for adapters and for policies of a run.",
        ),
    ] = None
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, by its name on the hub, such as apache-2.0.")
    ] = None
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Data set that it was trained on, by its hub name. May be repeated."),
    ] = None
    shard_size: Annotated[str, typer.Option(help="Maximum size of one weights file.")] = "5GB"


@app.command()
@spread
def export(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="A model's folder or hub name, a LoRA adapter's folder, or nano."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The folder to write. It must be new or empty.")],
    flags: ExportFlags,
    format_: Annotated[
        Literal["safetensors", "onnx", "onnx-8bit"],
        typer.Option(
            "--format",
            help="onnx adds the graphs with which a nano policy and its segmenter run without torch; "
            "onnx-8bit has two thirds of the language model in 8 bits, which is faster.",
        ),
    ] = "safetensors",
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload it too. The token is read from HF_TOKEN."),
    ] = None,
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
    given = {name: value for name, value in vars(flags).items() if value is not None}
    graphs, eight_bits = format_ != "safetensors", format_ == "onnx-8bit"
    folder = write(Export(policy, out, graphs=graphs, eight_bits=eight_bits, **given))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:,.1f} MB; read {folder / 'README.md'} before you share it")
    if push is not None:
        print(upload(folder, push))
