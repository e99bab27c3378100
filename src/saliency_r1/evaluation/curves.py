"""Precision, recall and F of several methods at each threshold, as CSV and as PDF."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from saliency_r1.evaluation.sod_scores import CURVES, THRESHOLDS

if TYPE_CHECKING:
    from saliency_r1.evaluation.compare import Run

_PANEL_INCHES = 4.2


def curve_files(runs: Mapping[tuple[str, str], Run]) -> dict[str, bytes]:
    """Make the files curves.csv and, where matplotlib is installed, curves.pdf.

    Args:
        runs: runs by method and set.

    Returns:
        Content by name; nothing where the runs have no curves, as in SIS.
    """
    if not _known(runs):
        return {}
    files = {"curves.csv": curves_csv(runs)}
    if find_spec("matplotlib") is not None:
        files["curves.pdf"] = curves_pdf(runs)
    return files


def curves_csv(runs: Mapping[tuple[str, str], Run]) -> bytes:
    """Return a CSV with a line for each set, method and threshold.

    Args:
        runs: runs by method and set.

    Returns:
        The columns set, method, threshold (0 to 1), precision, recall, f (beta² 0.3) and e.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "method", "threshold", *(name.removesuffix("_curve") for name in CURVES)])
    for method, data, curves in _known(runs):
        values = zip(*(curves[name] for name in CURVES), strict=True)
        for threshold, row in zip(THRESHOLDS.tolist(), values, strict=True):
            writer.writerow([data, method, f"{threshold / 255:.6g}", *row])
    return text.getvalue().encode()


def curves_pdf(runs: Mapping[tuple[str, str], Run]) -> bytes:
    """Draw a page for each set: precision over recall, and F over the threshold, a line for each method.

    Args:
        runs: runs by method and set.

    Raises:
        ModuleNotFoundError: if matplotlib is missing.
    """
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    known = _known(runs)
    content = io.BytesIO()
    with PdfPages(content) as pages:
        for data in dict.fromkeys(data for _, data, _ in known):
            figure = Figure(figsize=(2 * _PANEL_INCHES, _PANEL_INCHES), layout="constrained")
            precision, f_measure = figure.subplots(1, 2)
            for method, of, curves in known:
                if of == data:
                    precision.plot(curves["recall"], curves["precision"], label=method)
                    f_measure.plot(THRESHOLDS / 255, curves["f_curve"], label=method)
            precision.set(title=data, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
            f_measure.set(title=data, xlabel="threshold", ylabel="F (beta² 0.3)", xlim=(0, 1), ylim=(0, 1.01))
            for panel in (precision, f_measure):
                panel.grid(alpha=0.3)
            f_measure.legend()
            pages.savefig(figure)
    return content.getvalue()


def _known(runs: Mapping[tuple[str, str], Run]) -> Sequence[tuple[str, str, dict[str, list[float]]]]:
    """Method, set and curves of the runs that have curves."""
    return [
        (method, data, run.summary["curves"]) for (method, data), run in runs.items() if run.summary["curves"]
    ]
