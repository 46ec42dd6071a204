"""Pictures side by side under titles, with a legend, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, RULE = (255, 255, 255), (30, 30, 30), (150, 150, 150)

_HATCH = (176, 226)  # greys of what is not evaluated
_LEAST_HEIGHT, _MOST = 256, 800  # of a displayed picture: smaller ones are enlarged, larger ones reduced
_SWATCH_GAP = 6

Pixels = NDArray[np.uint8]


def page_of_tiles(
    tiles: Sequence[tuple[str, Pixels]], legend: Sequence[tuple[str, Pixels]] = (), columns: int | None = None
) -> Pixels:
    """Tiles under their titles, the legend under them, in as many lines as it needs.

    Args:
        tiles: (title, RGB picture), of one width.
        legend: (name, swatch of 64 x 64).
        columns: tiles in a row; all in one if None.
    """
    text = text_height(tiles[0][1].shape[0])
    title_font, font = ImageFont.load_default(text + 2), ImageFont.load_default(text)
    gap = text // 2 + 2
    columns = len(tiles) if columns is None else min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    column = max(tiles[0][1].shape[1], *(round(title_font.getlength(title)) + 1 for title, _ in tiles))
    lengths = [font.getlength(name) for name, _ in legend]
    width = max(gap + columns * (column + gap), text + _SWATCH_GAP + round(max(lengths, default=0)) + 2 * gap)
    lines = _wrapped(lengths, text, gap, width)
    line_height = round(1.6 * text)
    tops, bottom = [], 0  # of the tiles, of what stands already
    for row in rows:
        tops.append(bottom + gap + text + 2 + gap)
        bottom = tops[-1] + max(tile.shape[0] for _, tile in row)
    legend_height = (1 + max(line for _, line in lines)) * line_height + gap if lines else 0
    page = Image.new("RGB", (width, bottom + gap + legend_height), PAPER)
    draw = ImageDraw.Draw(page)
    for row, top in zip(rows, tops, strict=True):
        for number, (title, tile) in enumerate(row):
            left = gap + number * (column + gap)
            draw.text((left, top - gap), title, fill=INK, font=title_font, anchor="ls")
            page.paste(Image.fromarray(tile), (left, top))
    for (name, swatch), (x, line) in zip(legend, lines, strict=True):
        middle = bottom + gap + line * line_height + line_height // 2
        box = (x, middle - text // 2, x + text, middle - text // 2 + text)
        page.paste(Image.fromarray(swatch[:text, :text]), box[:2])
        draw.rectangle(box, outline=RULE)
        draw.text((x + text + _SWATCH_GAP, middle), name, fill=INK, font=font, anchor="lm")
    return np.array(page)


def text_height(height: int) -> int:
    """Of the letters beside a picture of this height, in pixels."""
    return int(np.clip(height / 20, 14, 28))


def displayed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is shown: a whole multiple if it is small, reduced if it is large."""
    if max(height, width) > _MOST:
        return max(1, round(height * _MOST / max(height, width))), max(1, round(width * _MOST / max(height, width)))
    factor = max(1, min(-(-_LEAST_HEIGHT // height), _MOST // width))
    return height * factor, width * factor


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture [H, W, 3] at this height and width."""
    smooth = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=smooth), np.uint8)


def nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The map [H, W, ...] at this height and width, by the nearest pixel: no value that was not there."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return np.asarray(values[rows[:, None], columns])


def hatch(size: tuple[int, int]) -> Pixels:
    """Hatching of this height and width."""
    diagonal = np.arange(size[0])[:, None] + np.arange(size[1])
    return np.where(diagonal[..., None] % 8 < 3, *_HATCH).astype(np.uint8).repeat(3, axis=-1)


def swatch(colour: Sequence[int] | Pixels) -> Pixels:
    """A legend's swatch."""
    return np.full((64, 64, 3), colour, np.uint8)


def _wrapped(lengths: list[float], text: int, gap: int, width: int) -> list[tuple[int, int]]:
    """Left edge and line of each legend entry whose name is so many pixels long."""
    places, x, line = [], gap, 0
    for length in lengths:
        needed = text + _SWATCH_GAP + round(length)
        if x > gap and x + needed > width - gap:
            x, line = gap, line + 1
        places.append((x, line))
        x += needed + 2 * gap
    return places
