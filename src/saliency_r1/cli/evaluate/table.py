"""`saliency-r1 evaluate table`: make a table of methods and sets from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from saliency_r1.evaluation.table.results import Method, TableSpec
    from saliency_r1.pipeline import SaliencyPipeline


def table(
    config: Annotated[
        Path, typer.Argument(metavar="TABLE.yaml", help="Sets, methods and metrics, see docs/evaluation.md.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write to. Default: that of the YAML file."),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Make the missing runs first.")] = False,
    device: Annotated[
        str, typer.Option(help="Where the models run: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
) -> None:
    """Write a table of methods and sets as Markdown, LaTeX and JSON, and the curves. Name missing runs.

    The exit code is 1 if a run is missing.
    """
    import json

    import yaml

    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation.curves import curve_files
    from saliency_r1.evaluation.table.results import collect, read_spec
    from saliency_r1.evaluation.table.text import latex, markdown, missing_line
    from saliency_r1.files import write_bytes_atomic

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SaliencyError(f"{config}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SaliencyError(f"{config}: is not YAML ({' '.join(str(error).split())})") from None
    spec = read_spec(content, str(config))
    if run:
        _make(spec, device)
    found = collect(spec)
    folder, stem = out or config.parent, config.stem
    texts = {
        "md": markdown(found),
        "tex": latex(found),
        "json": json.dumps(found.to_dict(), indent=1, allow_nan=False),
    }
    for ending, text in texts.items():
        write_bytes_atomic(folder / f"{stem}.{ending}", text.encode())
    print(texts["md"].split("\n### p-values")[0].split("\n### Missing")[0])
    for cell in found.missing:
        print(f"missing: {missing_line(cell)}")
    curves = curve_files(found.runs)
    for name, curve in curves.items():
        write_bytes_atomic(folder / f"{stem}-{name}", curve)
    files = [f"{folder / stem}.md", f"{stem}.tex", f"{stem}.json", *(f"{stem}-{name}" for name in curves)]
    print(", ".join(files))
    if found.missing:
        raise typer.Exit(1)


def _make(spec: TableSpec, device: str) -> None:
    """Make the runs that are missing, method by method; report each failure and continue with the others."""
    from dataclasses import replace
    from functools import cache, partial

    from rich.console import Console

    from saliency_r1.cli.evaluate.run import evaluate_request
    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation.table.results import command
    from saliency_r1.workers import default_workers

    remarks = Console(stderr=True, highlight=False, markup=False)
    for method in spec.methods:
        load = cache(partial(_load, method, device))
        for name in spec.sets:
            request = spec.request(method, name)
            words = command(method, request)
            if (request.out / "summary.json").is_file() or not words:
                continue
            request = replace(request, workers=default_workers(), command=words)
            try:
                evaluate_request(request, load, remarks)
            except SaliencyError as error:
                remarks.print(f"{method.name} on {name}: {error}", style="red", soft_wrap=True)


def _load(method: Method, device: str) -> SaliencyPipeline:
    from saliency_r1.catalogue import NANO
    from saliency_r1.cli.models import load_pipeline

    return load_pipeline(
        None if method.model == NANO else method.model, method.segmenter, device, method.options
    )
