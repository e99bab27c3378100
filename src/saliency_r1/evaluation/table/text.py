"""Write a results table as Markdown and as LaTeX: the best values in bold, missing ones named."""

from __future__ import annotations

from saliency_r1.evaluation.compare import shown_p
from saliency_r1.evaluation.outputs import TITLES, latex_text, shown
from saliency_r1.evaluation.sod_scores import LOWER_IS_BETTER
from saliency_r1.evaluation.table.results import SURE, MissingCell, ResultsTable

MARK = "*"
"""The mark of a value that differs significantly from the reference's."""


def markdown(table: ResultsTable) -> str:
    """Return a table of methods and sets for each metric, then p-values, missing runs and notes."""
    spec = table.spec
    parts = []
    for metric in spec.metrics:
        rows = [
            [method.name, *(_cell(table, method.name, data, metric, "**{}**") for data in spec.sets)]
            for method in spec.methods
        ]
        parts.append(f"### {_title(metric)}\n\n{_rows(['method', *spec.sets], rows)}")
    text = "\n\n".join(parts)
    text += f"\n\nBold: the best of its column. {_explained(table)}\n"
    if table.p_values:
        rows = [
            [method, data, TITLES[metric], shown_p(value)]
            for (method, data, metric), value in table.p_values.items()
        ]
        heads = ["method", "set", "metric", f"p against {spec.reference}"]
        text += f"\n### p-values\n\n{_rows(heads, rows)}\n"
    if table.missing:
        text += "\n### Missing\n\n" + "".join(f"- {missing_line(cell)}\n" for cell in table.missing)
    if notes := table.notes():
        text += "\n### Notes\n\n" + "".join(f"- {note}.\n" for note in notes)
    return text


def latex(table: ResultsTable) -> str:
    """Return a table for the LaTeX package booktabs: a row for each method, the metrics of each set."""
    spec = table.spec
    width = len(spec.metrics)
    spans = [(2 + width * index, 1 + width * (index + 1)) for index in range(len(spec.sets))]
    lines = [f"% missing: {missing_line(cell)}" for cell in table.missing]
    lines += [f"% {note}" for note in table.notes()]
    lines += [
        f"% {_explained(table)}",
        rf"\begin{{tabular}}{{l{'c' * (width * len(spec.sets))}}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(name)}}}" for name in spec.sets)])
        + r" \\",
        " ".join(rf"\cmidrule(lr){{{first}-{last}}}" for first, last in spans),
        " & ".join(["Method", *([_title(metric, latex=True) for metric in spec.metrics] * len(spec.sets))])
        + r" \\",
        r"\midrule",
    ]
    for method in spec.methods:
        cells = [
            _cell(table, method.name, data, metric, r"\textbf{{{}}}").replace("–", "--")
            for data in spec.sets
            for metric in spec.metrics
        ]
        lines.append(" & ".join([latex_text(method.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def missing_line(cell: MissingCell) -> str:
    """Return a line about a missing cell, with the command that makes it."""
    made = f": {cell.command}" if cell.command else ""
    return f"{cell.method} on {cell.data}, {cell.reason}{made}"


def _cell(table: ResultsTable, method: str, data: str, metric: str, bold: str) -> str:
    value = table.value(method, data, metric)
    if value is None:
        return "–"
    text = shown(value)
    if method in table.best(data, metric):
        text = bold.format(text)
    return text + (MARK if table.p_values.get((method, data, metric), 1.0) < SURE else "")


def _title(metric: str, *, latex: bool = False) -> str:
    arrow = "down" if metric in LOWER_IS_BETTER else "up"
    title = TITLES[metric]
    return rf"{latex_text(title)}$\{arrow}arrow$" if latex else f"{title} {'↓' if arrow == 'down' else '↑'}"


def _explained(table: ResultsTable) -> str:
    if not table.p_values:
        return "No p-values: no method shares a set with the reference."
    count = len(table.p_values)
    return (
        f"{MARK}: differs from {table.spec.reference}, p < {SURE} (two-sided Wilcoxon signed-rank test over "
        f"the photos' own values, corrected by Holm's method for {count} tests)."
    )


def _rows(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
