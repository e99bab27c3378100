"""`saliency-r1 compare`: compare two or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN...", help="Folders of finished runs. The first is the baseline."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write compare.html and compare.json there.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier comparison.")] = False,
) -> None:
    """Compare runs on the same photos: differences, 95 % intervals, wins and losses."""
    import json

    from saliency_r1.errors import SaliencyError
    from saliency_r1.evaluation import compare as comparing
    from saliency_r1.files import write_bytes_atomic

    if len(runs) < 2:
        raise SaliencyError(f"{len(runs)} run: give at least two folders that `saliency-r1 evaluate` wrote")
    if out is not None and (out / "compare.json").exists() and not overwrite:
        raise SaliencyError(f"{out}: holds a comparison; give another --out, or --overwrite to replace it")
    loaded = [comparing.load_run(folder) for folder in runs]
    comparing.check_comparable(loaded)
    differences = [comparing.compare(loaded[0], other) for other in loaded[1:]]
    for other, found in zip(loaded[1:], differences, strict=True):
        print(f"{other.method} (second) against {loaded[0].method} (first), {len(other.rows)} photos")
        _print_table([list(comparing.DIFFERENCE_TITLES), *comparing.difference_rows(found)])
    for run in loaded:
        for note in run.summary["notes"]:
            print(f"{run.method}: {note}.")
    if out is not None:
        write_bytes_atomic(out / "compare.html", comparing.comparison_report(loaded, differences))
        content = json.dumps(comparing.comparison_dict(loaded, differences), indent=1)
        write_bytes_atomic(out / "compare.json", content.encode())
        print(f"{out}/compare.html, compare.json")


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]), sep="  ")
