"""`saliency-r1 compare`: compare two or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saliency_r1.evaluation.attributes import Split
    from saliency_r1.evaluation.table.results import ResultsTable

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Folders of finished runs, on one or several data sets. The first is the baseline.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write compare.html, compare.json, compare.tex and the curves there."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Only these, such as mae,s_measure,boundary_iou.")
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Names of photos and their attributes; the means of each are added."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier comparison.")] = False,
) -> None:
    """Compare runs on the same photos: differences, 95 % intervals, corrected p-values, wins and losses."""
    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation import compare as comparing
    from saliency_r1.evaluation.attributes import by_attribute, read_attributes
    from saliency_r1.evaluation.table.results import table_of
    from saliency_r1.extras import check_extra

    check_extra("evaluate", "compare")
    if len(runs) < 2:
        raise SaliencyError(f"{len(runs)} run: give at least two folders that `saliency-r1 evaluate` wrote")
    if out is not None and (out / "compare.json").exists() and not overwrite:
        raise SaliencyError(f"{out}: holds a comparison; give another --out, or --overwrite to replace it")
    wanted = [name.strip() for name in metrics.split(",")] if metrics else None
    table = table_of([comparing.load_run(folder) for folder in runs], wanted)
    splits: list[Split] = []
    if attributes is not None:
        rows_of = {place: run.rows for place, run in table.runs.items()}
        splits = by_attribute(rows_of, read_attributes(attributes), table.spec.metrics)
    found = {
        place: [one for one in rows if wanted is None or one.metric in wanted]
        for place, rows in comparing.differences(table.runs).items()
    }
    for (method, data), rows in found.items():
        base = next(one for one, of in table.runs if of == data)
        photos = len(table.runs[method, data].rows)
        print(f"{method} (second) against {base} (first), {photos} photos of {data}")
        p = {name: value for (one, of, name), value in table.p_values.items() if (one, of) == (method, data)}
        _print_table([list(comparing.DIFFERENCE_TITLES), *comparing.difference_rows(rows, p)])
    _print_splits(splits)
    for note in table.notes():
        print(f"{note}.")
    if out is not None:
        _write(out, table, found, splits)


def _write(
    out: Path,
    table: ResultsTable,
    found: dict[tuple[str, str], list],
    splits: Sequence[Split],
) -> None:
    import json

    from saliency_r1.evaluation import compare as comparing
    from saliency_r1.evaluation.attributes import attributes_csv
    from saliency_r1.evaluation.curves import curve_files
    from saliency_r1.evaluation.table.text import latex
    from saliency_r1.files import write_bytes_atomic

    content = comparing.comparison_dict(table.runs, found, table.p_values)
    files = {
        "compare.html": comparing.comparison_report(table.runs, found, table.p_values, splits),
        "compare.json": json.dumps(content, indent=1).encode(),
        "compare.tex": latex(table).encode(),
        **curve_files(table.runs),
    }
    if splits:
        files["attributes.csv"] = attributes_csv(splits)
    for name, data in files.items():
        write_bytes_atomic(out / name, data)
    print(f"{out}/{', '.join(files)}")


def _print_splits(splits: Sequence[Split]) -> None:
    from saliency_r1.evaluation.outputs import TITLES, shown

    metrics = list(dict.fromkeys(metric for split in splits for _, metric in split.means))
    for data in dict.fromkeys(split.data for split in splits):
        print(f"By attribute, {data}")
        rows = [["attribute", "photos", "method", *(TITLES[metric] for metric in metrics)]]
        for split in splits:
            for method in dict.fromkeys(method for method, _ in split.means):
                values = [shown(split.means[method, metric]) for metric in metrics]
                if split.data == data:
                    rows.append([f"{split.attribute} = {split.value}", str(split.photos), method, *values])
        _print_table(rows)


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep="  ")
