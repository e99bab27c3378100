"""Write report.html: one self-contained page with numbers, charts and photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from saliency_r1.evaluation.calibration import BINS, Calibration
from saliency_r1.evaluation.evaluation import Evaluation, Row
from saliency_r1.evaluation.outputs import TITLES, RunFacts, calibration_of, definitions, shown, warnings
from saliency_r1.evaluation.report.charts import histogram, line_chart, reliability_diagram
from saliency_r1.evaluation.report.pictures import PicturesOf, figure
from saliency_r1.evaluation.sod_scores import THRESHOLDS
from saliency_r1.wording import shown_name

CASES = 24
_GROUP_METRICS = ("s_measure", "mae", "max_f", "mean_e", "iou")

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#16202b;max-width:1200px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:.2em}
h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #dfe4e8}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2em .7em;text-align:right}
th{border-bottom:2px solid #16202b}
td:first-child,th:first-child{text-align:left}
tr:nth-child(even) td{background:#f5f7f8}
.faded,figcaption,dd{color:#5b6770}
.warn{border-left:4px solid #e4572e;padding:.2em 1em;background:#fdf1ec}
.charts{display:flex;flex-wrap:wrap;gap:1em}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(570px,1fr));gap:1em}
.case{border:1px solid #dfe4e8;border-radius:6px;padding:.6em;overflow:hidden}
.case p{margin:.3em 0}
.row{display:flex;gap:.4em;flex-wrap:wrap}
figure{margin:0}
figcaption{font-size:.8em}
.none{width:120px;height:90px;background:#f5f7f8;display:grid;place-items:center}
code{background:#f5f7f8;padding:.1em .3em;overflow-wrap:anywhere}
dt{font-weight:600}
"""


def report(evaluation: Evaluation, facts: RunFacts, pictures_of: PicturesOf) -> bytes:
    """Return the content of report.html.

    Args:
        evaluation: the evaluation's findings.
        facts: the facts of the run.
        pictures_of: photo, truth and prediction of a photo's name.
    """
    metric = evaluation.ranked_by
    ranked = sorted(evaluation.rows, key=lambda row: (row.values[metric], row.name))
    best = ranked[: -CASES - 1 : -1] if len(ranked) > CASES else ranked[::-1]
    calibration = calibration_of(evaluation)
    parts = [
        f"<h1>{escape(facts.method)} on {escape(facts.data_name)}</h1>",
        f'<p class="faded">{evaluation.task.spec.title}, {len(evaluation.rows):,} photos</p>',
        *(f'<p class="warn">{escape(note)}.</p>' for note in warnings(evaluation, facts)),
        table(
            [TITLES[name] for name in evaluation.metrics],
            [[shown(value) for value in evaluation.metrics.values()]],
        ),
        "<h2>Curves and distributions</h2>",
        f'<div class="charts">{"".join(_charts(evaluation))}</div>',
        _calibration(calibration) if calibration else "",
        _groups(evaluation) if evaluation.groups else "",
        f"<h2>Worst {min(CASES, len(ranked))} by {TITLES[metric]}</h2>",
        _cases(ranked[:CASES], metric, pictures_of),
        f"<h2>Best {min(CASES, len(ranked))} by {TITLES[metric]}</h2>",
        _cases(best, metric, pictures_of),
        "<h2>What the numbers are</h2><dl>",
        *(
            f"<dt>{escape(TITLES[name])}</dt><dd>{escape(text)}</dd>"
            for name, text in definitions(evaluation.task).items()
        ),
        "</dl><h2>How it was made</h2>",
        f"<p><code>{escape(facts.command)}</code></p>",
        f"<p>Ground truth sha256:{evaluation.fingerprint}. "
        + escape(", ".join(f"{count:,} {what}" for what, count in evaluation.counts.items()))
        + f". Model: {escape(facts.model or 'none, predictions were given')}.</p>",
    ]
    return page(f"{facts.method} on {facts.data_name}", parts)


def page(title: str, parts: Iterable[str]) -> bytes:
    """Return a whole HTML page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    ).encode()


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML; texts are escaped."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _charts(evaluation: Evaluation) -> Iterable[str]:
    result = evaluation.result
    if result is not None:
        thresholds = (THRESHOLDS / 255).tolist()
        recall, precision = result.recall.tolist(), result.precision.tolist()
        yield line_chart("Precision and recall", "recall", "precision", {"": (recall, precision)})
        yield line_chart("F-measure", "threshold", "F", {"": (thresholds, result.f_curve.tolist())})
        yield line_chart("E-measure", "threshold", "E", {"": (thresholds, result.e_curve.tolist())})
    for name in ("s_measure", "mae", "ap", "iou"):
        values = [row.values[name] for row in evaluation.rows if name in row.values]
        if values:
            yield histogram(f"{TITLES[name]} of the photos", TITLES[name], values)


def _calibration(calibration: Calibration) -> str:
    auroc = (
        "undefined (all photos are of one kind)" if calibration.auroc is None else f"{calibration.auroc:.3f}"
    )
    charts = reliability_diagram(calibration.bins, 1 / BINS) + line_chart(
        "Risk and coverage",
        "coverage (most confident first)",
        "mean 1 - IoU",
        {"": (calibration.coverage, calibration.risk)},
    )
    return (
        "<h2>Does the confidence predict the IoU?</h2>"
        f"<p>Confidence against IoU over {calibration.count:,} photos: expected calibration error "
        f"{calibration.ece:.3f}, "
        f"AUROC for IoU &gt; 0.5 {auroc}, area under the risk-coverage curve {calibration.aurc:.3f}.</p>"
        f'<div class="charts">{charts}</div>'
    )


def _groups(evaluation: Evaluation) -> str:
    ordered = sorted(evaluation.groups.items(), key=lambda item: item[1]["s_measure"])
    rows = [
        [name, str(values["count"]), *(shown(values[metric]) for metric in _GROUP_METRICS)]
        for name, values in ordered
    ]
    titles = ["group", "photos", *(TITLES[metric] for metric in _GROUP_METRICS)]
    return f"<h2>The groups, worst first</h2>{table(titles, rows)}"


def _cases(rows: Sequence[Row], metric: str, pictures_of: PicturesOf) -> str:
    return f'<div class="cases">{"".join(_case(row, metric, pictures_of) for row in rows)}</div>'


def _case(row: Row, metric: str, pictures_of: PicturesOf) -> str:
    figures = "".join(figure(caption, image) for caption, image in pictures_of(row.name))
    said = f"<b>{escape(row.name)}</b> {TITLES[metric]} {shown(row.values[metric])}"
    if "mae" in row.values:
        said += f", MAE {shown(row.values['mae'])}, IoU {shown(row.values['iou'])}"
    if "ap" in row.values:
        said += (
            f", AP {shown(row.values['ap'])}, {row.values['predicted']:.0f} for {row.values['instances']:.0f}"
        )
    if row.problem:
        said += f", scored as empty: {escape(row.problem)}"
    words = ""
    if row.words is not None:
        sure = "" if row.words.confidence is None else f" (confidence {row.words.confidence:.2f})"
        expressions = "; ".join(map(shown_name, row.words.expressions)) or "nothing stands out"
        words = f'<p><b>{escape(expressions)}</b>{sure}</p><p class="faded">{escape(row.words.reasoning)}</p>'
    return f'<div class="case"><p>{said}</p><div class="row">{figures}</div>{words}</div>'
