"""`saliency-r1 batch`: find what stands out in very many photos, and write Parquet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saliency_r1.cli.options import FastOption, GroupImagesOption, ModelFlags, TruncatedOption, spread
from saliency_r1.cosod import GROUP_IMAGES
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from saliency_r1.batch.chunk_worker import Job

app = typer.Typer(add_completion=False)

_ray = partial(typer.Option, rich_help_panel="Ray")


class Engine(StrEnum):
    """The engine of a run: processes on this machine, or actors on Ray."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class RowFlags:
    """The options of what is read from tables, and of what is written."""

    shard_rows: Annotated[int, typer.Option(min=1, help="Rows in one Parquet shard.")] = 256
    png: Annotated[bool, typer.Option("--png", help="Also write _masks/…_mask.png as `predict` does.")] = (
        False
    )
    column: Annotated[
        str | None,
        typer.Option(help="For Parquet sources: the column of paths or bytes. Default: image, path, url, …"),
    ] = None
    group_column: Annotated[
        str | None, typer.Option(help="For Parquet sources and cosod: the column of group names.")
    ] = None


@dataclass(frozen=True)
class EngineFlags:
    """The options of the engine and of its size."""

    engine: Annotated[Engine, typer.Option(help="Run in processes on this machine, or in Ray actors.")] = (
        Engine.LOCAL
    )
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes or actors; each loads the models. Default: one for each core, at most "
            "8, or 1 if --policy or --segmenter is given.",
        ),
    ] = None
    address: Annotated[
        str | None,
        _ray(help="Address of the cluster: auto or HOST:PORT. Default: a local Ray instance."),
    ] = None
    min_workers: Annotated[
        int | None,
        _ray(min=1, help="Minimum number of actors; Ray adds up to --workers."),
    ] = None
    gpus: Annotated[
        float,
        _ray(min=0, help="GPUs for each actor; 0.5 means two on one GPU."),
    ] = 0


@app.command()
@spread
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="Folders, globs, lists (.txt), Parquet (.parquet), WebDataset shards (.tar); paths or URLs.",
        ),
    ],
    *,
    out: Annotated[str, typer.Option(help="Folder or URL for the Parquet shards.")],
    task: Annotated[
        Task,
        typer.Option(help="The task for each photo. With cosod, the photos of each folder are one group."),
    ] = Task.SOD,
    fast: FastOption = False,
    group_images: GroupImagesOption = GROUP_IMAGES,
    accept_truncated: TruncatedOption = False,
    models: ModelFlags,
    rows: RowFlags,
    run: EngineFlags,
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
        policy=models.policy,
        segmenter=models.segmenter,
        accept_truncated=accept_truncated,
        **asdict(rows),
    )
    workers = run.workers or (1 if models.policy or models.segmenter else default_workers())
    where = absolute(out).rstrip("/")
    job = Job(
        load=partial(load_pipeline, models.policy, models.segmenter, models.device, runtime=models.runtime),
        task=task,
        reasoning=not fast,
        group_images=group_images,
        masks=f"{where}/_masks" if rows.png else None,
        threads=max(1, cores() // workers) if run.engine is Engine.LOCAL else None,
        accept_truncated=accept_truncated,
    )
    console = Console(stderr=True, highlight=False, markup=False)
    outcome = run_batch(settings, Folder(where), _engine(run, job, workers), console)
    failed = f", {outcome.errors:,} of them with an error" if outcome.errors else ""
    console.print(f"{outcome.photos:,} rows{failed} are in {out}", style="dim", soft_wrap=True)
    raise typer.Exit(1 if outcome.errors else 0)


def _engine(run: EngineFlags, job: Job, workers: int) -> Any:
    """Return what runs the job: worker processes, or actors on Ray."""
    if run.engine is Engine.LOCAL:
        from saliency_r1.batch.local import run_local

        if run.address is not None or run.min_workers is not None or run.gpus:
            raise SaliencyError("--address, --min-workers and --gpus need --engine ray")
        return partial(run_local, job=job, workers=workers)
    from saliency_r1.batch.on_ray import RayOptions, run_on_ray

    options = RayOptions(run.address, run.min_workers or workers, workers, run.gpus)
    return partial(run_on_ray, job=job, options=options)


def _check_extra() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise SaliencyError("batch needs pyarrow and fsspec: pip install 'saliency-r1[batch]'") from None
