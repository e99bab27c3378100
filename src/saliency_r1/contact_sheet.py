"""Draw several results on one picture: photos and overlays, with the words below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from PIL import Image, ImageDraw

from saliency_r1.overlay import draw_badge, font, wrapped
from saliency_r1.result import SaliencyResult
from saliency_r1.wording import shown_name

CELL = (400, 268)
GAP = 14
MARGIN = 28
PAPER, INK, FADED, RULE, ACCENT = "#ffffff", "#16202b", "#5b6770", "#dfe4e8", "#e4572e"
TITLE_SIZE, EXPRESSION_SIZE, REASONING_SIZE, CAPTION_SIZE = 30, 21, 15, 13
EXPRESSION_LINES, REASONING_LINES = 2, 5
GROUP_WIDTH = 4 * CELL[0] + 3 * GAP


def contact_sheet(results: Sequence[SaliencyResult], columns: int = 4) -> Image.Image:
    """Draw a sheet with a column for each result.

    A column shows the photo, the overlay, the cut-out on a checkerboard, the expression (in SIS one for each
    instance, with its number), the confidence as a bar, and the reasoning.

    Args:
        results: the results, at least one.
        columns: number of results in a row.

    Returns:
        Image of mode RGB.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("a contact sheet of no results: give at least one")
    columns = min(columns, len(results))
    width = columns * CELL[0] + (columns - 1) * GAP
    rows = [_row(results[first : first + columns], width) for first in range(0, len(results), columns)]
    return _framed(_stacked(rows, 2 * GAP))


def _row(results: Sequence[SaliencyResult], width: int) -> Image.Image:
    """Draw the columns of some results, as high as the longest text needs."""
    pictures = 3 * (CELL[1] + GAP)
    row = Image.new("RGB", (width, pictures + _words_height(results)), PAPER)
    draw = ImageDraw.Draw(row)
    end = 0
    for index, result in enumerate(results):
        left, top = index * (CELL[0] + GAP), 0
        for picture in (result.image, result.overlay(), on_checkerboard(result.cutout())):
            panel = _fitted(picture, CELL)
            row.paste(panel, (left, top + (CELL[1] - panel.height) // 2))
            top += CELL[1] + GAP
        end = max(end, _write(draw, result, left, top))
    return row.crop((0, 0, width, end))


class GroupSheet:
    """A sheet of one CoSOD group: what it shares, and the overlay of every image.

    It keeps only small pictures, so the results of a large group need not be in memory together.

    Example:
        >>> sheet = GroupSheet()
        >>> for result in pipe.stream(album, "cosod"):  # doctest: +SKIP
        ...     sheet.add(result)
        >>> sheet.draw().save("group.jpg")  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._first: SaliencyResult | None = None
        self._cells: list[tuple[Image.Image, str, bool]] = []
        self._confidences: list[float] = []

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, result: SaliencyResult) -> None:
        """Add the next image of the group."""
        if self._first is None:
            blank = Image.new("RGB", (1, 1))
            self._first = replace(result, image=blank, layer=None, instances=())
        if result.confidence is not None:
            self._confidences.append(result.confidence)
        self._cells.append((_fitted(result.overlay(), CELL), result.name, bool(result.instances)))

    def draw(self) -> Image.Image:
        """Draw the sheet so far, RGB.

        Raises:
            ValueError: if no result was added.
        """
        if self._first is None:
            raise ValueError("a group sheet of no results: add at least one")
        count = len(self._cells)
        columns = 4 if count <= 12 else 6 if count <= 36 else 8
        width = (GROUP_WIDTH - (columns - 1) * GAP) // columns
        size = width, width * CELL[1] // CELL[0]
        height = size[1] + GAP // 2 + _line_height(CAPTION_SIZE)
        rows = -(-count // columns)
        grid = Image.new("RGB", (GROUP_WIDTH, rows * height + (rows - 1) * GAP), PAPER)
        draw = ImageDraw.Draw(grid)
        for index, (picture, name, there) in enumerate(self._cells):
            row, column = divmod(index, columns)
            left, top = column * (width + GAP), row * (height + GAP)
            panel = _fitted(picture, size)
            grid.paste(panel, (left + (width - panel.width) // 2, top + (size[1] - panel.height) // 2))
            caption = name if there else f"not in {name}"
            (line,) = wrapped(caption, font(CAPTION_SIZE), width, 1)
            draw.text((left, top + size[1] + GAP // 2), line, FADED if there else ACCENT, font(CAPTION_SIZE))
        head = Image.new("RGB", (GROUP_WIDTH, _words_height([self._first])), PAPER)
        nothing = "nothing that stands out is shared"
        # A group's confidence is the mean over its masks.
        confidence = fmean(self._confidences) if self._confidences else None
        shared = replace(self._first, confidence=confidence)
        end = _write(ImageDraw.Draw(head), shared, 0, 0, GROUP_WIDTH, nothing)
        return _framed(_stacked([head.crop((0, 0, GROUP_WIDTH, end)), grid], GAP))


def sections(sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Stack sheets vertically, each under its title.

    Args:
        sheets: title and sheet of each, at least one.
    """
    parts = []
    for title, sheet in sheets:
        line = Image.new("RGB", (sheet.width, MARGIN + _line_height(TITLE_SIZE)), PAPER)
        ImageDraw.Draw(line).text((MARGIN, MARGIN), title, INK, font(TITLE_SIZE))
        parts.append(_stacked([line, sheet], 0))
    return _stacked(parts, 0)


def on_checkerboard(cutout: Image.Image, square: int | None = None) -> Image.Image:
    """Put an RGBA picture on the grey checkerboard that means transparency; RGB."""
    side = square or max(4, max(cutout.size) // 40)
    y, x = np.ogrid[: cutout.height, : cutout.width]
    board = np.where((x // side + y // side) % 2, 236, 255).astype(np.uint8)
    ground = Image.fromarray(board).convert("RGB")
    ground.paste(cutout, mask=cutout.getchannel("A"))
    return ground


def _fitted(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _stacked(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack pictures vertically, aligned on the left."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), PAPER)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + gap
    return whole


def _framed(picture: Image.Image) -> Image.Image:
    """Add a margin on all sides."""
    framed = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + 2 * MARGIN), PAPER)
    framed.paste(picture, (MARGIN, MARGIN))
    return framed


def _line_height(size: int) -> int:
    return round(size * 1.35)


def _words_height(results: Sequence[SaliencyResult]) -> int:
    """Return a height that is enough for the words of each result."""
    most = max(max(1, len(result.instances)) for result in results)
    return (
        most * EXPRESSION_LINES * _line_height(EXPRESSION_SIZE)
        + 2 * GAP
        + _line_height(REASONING_SIZE) * (1 + REASONING_LINES)
    )


def _write(
    draw: ImageDraw.ImageDraw,
    result: SaliencyResult,
    left: int,
    top: int,
    width: int = CELL[0],
    nothing: str = "nothing stands out",
) -> int:
    """Write the words of a result at (left, top) and below; return where they end."""
    numbered = result.task.spec.several_expressions and bool(result.instances)
    lettering, step = font(EXPRESSION_SIZE), _line_height(EXPRESSION_SIZE)
    expressions = [one.expression for one in result.instances] if numbered else result.expressions
    named = [shown_name(expression) for expression in expressions]
    named = named if numbered else ["; ".join(named)]
    indent = step + GAP // 2 if numbered else 0
    for index, expression in enumerate(named):
        if numbered:
            radius = step / 2 - 2
            draw_badge(draw, (left + radius, top + step / 2), radius, index, ring=False)
        for line in wrapped(expression or nothing, lettering, width - indent, EXPRESSION_LINES):
            # Anchored in the middle, so that letters with and without descenders align with a badge.
            draw.text(
                (left + indent, top + step / 2),
                line,
                INK,
                lettering,
                anchor="lm",
                stroke_width=0.4,
                stroke_fill=INK,
            )
            top += step
    top += GAP // 2
    lettering = font(REASONING_SIZE)
    if result.confidence is not None:
        kind = "confidence" if result.expressions else "policy confidence"
        bar = CELL[0] // 2
        middle = top + _line_height(REASONING_SIZE) // 2
        draw.rounded_rectangle((left, middle - 4, left + bar, middle + 4), 4, RULE)
        filled = left + max(8, round(bar * result.confidence))
        draw.rounded_rectangle((left, middle - 4, filled, middle + 4), 4, ACCENT)
        words = f"{kind} {result.confidence:.2f}"
        draw.text((left + bar + GAP, middle), words, FADED, lettering, anchor="lm")
    top += _line_height(REASONING_SIZE) + GAP // 2
    for line in wrapped(result.reasoning, lettering, width, REASONING_LINES):
        draw.text((left, top), line, FADED, lettering)
        top += _line_height(REASONING_SIZE)
    return top
