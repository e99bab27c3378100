"""Several results on one picture: photo, overlay and cut-out, with the words below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from saliency_r1.result import SaliencyResult

CELL = (400, 268)
GAP = 14
MARGIN = 28
PAPER, INK, FADED, RULE, ACCENT = "#ffffff", "#16202b", "#5b6770", "#dfe4e8", "#e4572e"
EXPRESSION_SIZE, REASONING_SIZE = 21, 15
EXPRESSION_LINES, REASONING_LINES = 2, 5


def contact_sheet(results: Sequence[SaliencyResult], columns: int = 4) -> Image.Image:
    """A sheet with a column for each result.

    In it stand the photo, the overlay, the cut-out on a checkerboard, then the expression, the confidence as
    a bar, and the reasoning.

    Args:
        results: at least one.
        columns: how many stand side by side before a new row begins.

    Returns:
        Image of mode RGB.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("a contact sheet of no results: give at least one")
    columns = min(columns, len(results))
    rows = -(-len(results) // columns)
    column_height = 3 * (CELL[1] + GAP) + _words_height() + GAP
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + columns * CELL[0] + (columns - 1) * GAP, 2 * MARGIN + rows * column_height),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    end = 0
    for index, result in enumerate(results):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (CELL[0] + GAP), MARGIN + row * column_height
        for picture in (result.image, result.overlay(), on_checkerboard(result.cutout())):
            panel = _fitted(picture)
            sheet.paste(panel, (left, top + (CELL[1] - panel.height) // 2))
            top += CELL[1] + GAP
        end = max(end, _write(draw, result, left, top))
    return sheet.crop((0, 0, sheet.width, end + MARGIN))


def on_checkerboard(cutout: Image.Image, square: int | None = None) -> Image.Image:
    """An RGBA picture on the grey checkerboard that stands for transparency, as RGB."""
    side = square or max(4, max(cutout.size) // 40)
    y, x = np.ogrid[: cutout.height, : cutout.width]
    board = np.where((x // side + y // side) % 2, 236, 255).astype(np.uint8)
    ground = Image.fromarray(board).convert("RGB")
    ground.paste(cutout, mask=cutout.getchannel("A"))
    return ground


def _fitted(picture: Image.Image) -> Image.Image:
    scale = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _line_height(size: int) -> int:
    return round(size * 1.35)


def _words_height() -> int:
    return (
        EXPRESSION_LINES * _line_height(EXPRESSION_SIZE)
        + 2 * GAP
        + _line_height(REASONING_SIZE) * (1 + REASONING_LINES)
    )


def _write(draw: ImageDraw.ImageDraw, result: SaliencyResult, left: int, top: int) -> int:
    """Put the words of a result at (left, top) and below; return where they end."""
    expression = "; ".join(result.expressions) or "nothing stands out"
    font = ImageFont.load_default(EXPRESSION_SIZE)
    for line in wrapped(expression, font, CELL[0], EXPRESSION_LINES):
        draw.text((left, top), line, INK, font, stroke_width=0.4, stroke_fill=INK)
        top += _line_height(EXPRESSION_SIZE)
    top += GAP // 2
    font = ImageFont.load_default(REASONING_SIZE)
    if result.confidence is not None:
        bar = CELL[0] // 2
        middle = top + _line_height(REASONING_SIZE) // 2
        draw.rounded_rectangle((left, middle - 4, left + bar, middle + 4), 4, RULE)
        filled = left + max(8, round(bar * result.confidence))
        draw.rounded_rectangle((left, middle - 4, filled, middle + 4), 4, ACCENT)
        draw.text((left + bar + GAP, middle), f"confidence {result.confidence:.2f}", FADED, font, anchor="lm")
    top += _line_height(REASONING_SIZE) + GAP // 2
    for line in wrapped(result.reasoning, font, CELL[0], REASONING_LINES):
        draw.text((left, top), line, FADED, font)
        top += _line_height(REASONING_SIZE)
    return top


def wrapped(
    text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int, lines: int
) -> list[str]:
    """The text in at most that many lines of at most that many pixels; an ellipsis ends one that is cut."""
    done: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            done.append(line)
            line = word
        else:
            line = longer
    done.append(line)
    if len(done) > lines:
        done = done[:lines]
        while done[-1] and font.getlength(f"{done[-1]} …") > width:
            done[-1] = done[-1].rpartition(" ")[0]
        done[-1] += " …"
    return done
