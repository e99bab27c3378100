"""`saliency-r1 batch`: find what stands out in very many photos, and write Parquet."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.options import DeviceOption, FastOption, GroupImagesOption, PolicyOption, SegmenterOption
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.batch.chunk_worker import Job

app = typer.Typer()

_RAY = "Ray"


class Engine(StrEnum):
    """The engine of a run: processes on this machine, or actors on Ray."""

    LOCAL = "local"
    RAY = "ray"


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCES...",
        help="Folders, globs, lists (.txt), Parquet (.parquet), WebDataset shards (.tar); paths or URLs.",
    ),
]
OutOption = Annotated[str, typer.Option(help="Folder or URL for the Parquet shards.")]
TaskOption = Annotated[
    Task,
    typer.Option(help="The task for each photo. With cosod, the photos of each folder are one group."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of processes or actors; each loads the models. Default: one for each core, at most 8, "
        "or 1 if --policy or --segmenter is given.",
    ),
]
ShardRowsOption = Annotated[int, typer.Option(min=1, help="Rows in one Parquet shard.")]
PngOption = Annotated[bool, typer.Option("--png", help="Also write _masks/…_mask.png as `predict` does.")]
ColumnOption = Annotated[
    str | None,
    typer.Option(help="For Parquet sources: the column of paths or bytes. Default: image, path, url, …"),
]
GroupColumnOption = Annotated[
    str | None, typer.Option(help="For Parquet sources and cosod: the column of group names.")
]
EngineOption = Annotated[Engine, typer.Option(help="Run in processes on this machine, or in Ray actors.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of the cluster: auto or HOST:PORT. Default: a local Ray instance.", rich_help_panel=_RAY
    ),
]
MinWorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Minimum number of actors; Ray adds up to --workers.", rich_help_panel=_RAY),
]
GpusOption = Annotated[
    float,
    typer.Option(min=0, help="GPUs for each actor; 0.5 means two on one GPU.", rich_help_panel=_RAY),
]


@app.command()
def batch(
    sources: SourcesArgument,
    out: OutOption,
    task: TaskOption = Task.SOD,
    fast: FastOption = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    policy: PolicyOption = None,
    segmenter: SegmenterOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    shard_rows: ShardRowsOption = 256,
    png: PngOption = False,
    column: ColumnOption = None,
    group_column: GroupColumnOption = None,
    engine: EngineOption = Engine.LOCAL,
    address: AddressOption = None,
    min_workers: MinWorkersOption = None,
    gpus: GpusOption = 0,
) -> None:
    """Find what stands out in very many photos, and write one row for each.

    The same command continues a run that was stopped or killed. A photo that cannot be read gets a row with
    the error.

    Exit codes: 0 all done, 1 some rows hold an error, 2 wrong usage or configuration, 130
    interrupted, 143 ended by SIGTERM.
    """
    _check_extra()
    from rich.console import Console

    from saliency_r1.batch.chunk_worker import Job
    from saliency_r1.batch.local import cores
    from saliency_r1.batch.plan import Settings
    from saliency_r1.batch.run import run_batch
    from saliency_r1.batch.storage import Folder, absolute
    from saliency_r1.cli.models import load_pipeline
    from saliency_r1.workers import default_workers

    settings = Settings.make(
        sources,
        task=task,
        fast=fast,
        group_images=group_images,
        policy=policy,
        segmenter=segmenter,
        shard_rows=shard_rows,
        png=png,
        column=column,
        group_column=group_column,
    )
    if workers is None:
        workers = 1 if policy or segmenter else default_workers()
    where = absolute(out).rstrip("/")
    job = Job(
        load=partial(load_pipeline, policy, segmenter, device),
        task=task,
        reasoning=not fast,
        group_images=group_images,
        masks=f"{where}/_masks" if png else None,
        threads=max(1, cores() // workers) if engine is Engine.LOCAL else None,
    )
    run_engine = _engine(engine, job, workers, address, min_workers, gpus)
    console = Console(stderr=True, highlight=False, markup=False)
    outcome = run_batch(settings, Folder(where), run_engine, console)
    failed = f", {outcome.errors:,} of them with an error" if outcome.errors else ""
    console.print(f"{outcome.photos:,} rows{failed} are in {out}", style="dim", soft_wrap=True)
    raise typer.Exit(1 if outcome.errors else 0)


def _engine(
    engine: Engine, job: Job, workers: int, address: str | None, min_workers: int | None, gpus: float
) -> Any:
    """Return what runs the job: worker processes, or actors on Ray."""
    if engine is Engine.LOCAL:
        from saliency_r1.batch.local import run_local

        if address is not None or min_workers is not None or gpus:
            raise SaliencyError("--address, --min-workers and --gpus need --engine ray")
        return partial(run_local, job=job, workers=workers)
    from saliency_r1.batch.on_ray import RayOptions, run_on_ray

    return partial(run_on_ray, job=job, options=RayOptions(address, min_workers or workers, workers, gpus))


def _check_extra() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise SaliencyError("batch needs pyarrow and fsspec: pip install 'saliency-r1[batch]'") from None
