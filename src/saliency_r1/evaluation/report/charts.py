"""Small charts as SVG text, for a page without scripts or other files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

COLOURS = ("#e4572e", "#2e7d9a", "#6a994e", "#8e5ea2", "#b8860b", "#5b6770")
_WIDTH, _HEIGHT = 360, 260
_STYLE = (
    ".grid{stroke:#dfe4e8}.aid{stroke:#5b6770;stroke-dasharray:4 3}"
    "text{fill:#5b6770}.title{font:bold 13px sans-serif;fill:#16202b}"
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 28, 40

Points = tuple[Sequence[float], Sequence[float]]


def line_chart(title: str, x_title: str, y_title: str, lines: dict[str, Points]) -> str:
    """Draw lines in one frame, with both axes from 0 to 1.

    Args:
        title, x_title, y_title: titles of the chart and of its axes.
        lines: x and y values by name; names are written if there are several.
    """
    marks = []
    for index, (name, (xs, ys)) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{_x(x)},{_y(y)}" for x, y in zip(xs, ys, strict=True))
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(lines) > 1:
            marks.append(
                f'<text x="{_LEFT + 8}" y="{_HEIGHT - _BOTTOM - 8 - 15 * index}" '
                f'style="fill:{colour}">{escape(name)}</text>'
            )
    return _frame(title, x_title, y_title, marks)


def histogram(title: str, x_title: str, values: Sequence[float] | np.ndarray, bins: int = 25) -> str:
    """Draw how often values in [0, 1] occur; values that are not finite are ignored."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)].clip(0, 1)
    counts, edges = np.histogram(finite, bins=bins, range=(0, 1))
    top = float(max(counts.max(initial=0), 1))
    marks = [
        _bar(left, right, count / top, f"{left:.2f} to {right:.2f}: {count}")
        for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if count
    ]
    return _frame(title, x_title, "photos", marks, top)


def reliability_diagram(bins: Sequence[tuple[int, float, float]], width: float) -> str:
    """Draw the mean IoU (bars) over the bins of confidence; the diagonal is perfect.

    Args:
        bins: count, mean confidence and mean IoU of each bin that holds photos.
        width: width of a bin.
    """
    marks = []
    for count, confidence, iou in bins:
        left = min(int(confidence / width), round(1 / width) - 1) * width
        marks.append(
            _bar(left, left + width, iou, f"confidence {confidence:.2f}, IoU {iou:.2f}, {count} photos")
        )
        marks.append(f'<circle cx="{_x(confidence)}" cy="{_y(iou)}" r="3" fill="{COLOURS[0]}"/>')
    marks.append(f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" class="aid"/>')
    return _frame("Reliability", "confidence", "IoU", marks)


def _bar(left: float, right: float, height: float, tip: str) -> str:
    x, y = _x(left), _y(height)
    wide, high = max(_x(right) - x - 1, 1), _y(0) - y
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{high:.1f}" fill="{COLOURS[1]}">'
        f"<title>{escape(tip)}</title></rect>"
    )


def _x(value: float) -> float:
    return round(_LEFT + value * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(value: float) -> float:
    return round(_HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM), 1)


def _frame(title: str, x_title: str, y_title: str, marks: Sequence[str], top: float = 1) -> str:
    """Draw axes with their grid around the marks; `top` is the value at the upper end."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    grid = []
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        grid.append(f'<path d="M{_LEFT} {_y(share)}H{right}" class="grid"/>')
        grid.append(f'<text x="{_LEFT - 6}" y="{_y(share) + 4}" text-anchor="end">{share * top:.4g}</text>')
        grid.append(f'<text x="{_x(share)}" y="{bottom + 16}" text-anchor="middle">{share:.4g}</text>')
    middle = (_LEFT + right) / 2, (_TOP + bottom) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="{escape(title)}" font-family="sans-serif" font-size="11">'
        f"<style>{_STYLE}</style>"
        f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>'
        f"{''.join(grid)}{''.join(marks)}"
        f'<text x="{middle[0]}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text transform="translate(12 {middle[1]}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
        "</svg>"
    )
