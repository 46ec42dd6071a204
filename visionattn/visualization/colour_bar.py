"""Bars that say what number a colour is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visionattn.visualization.tiles import INK, PAPER, RULE

Pixels = NDArray[np.uint8]

_STEPS = (1, 2, 5, 10)


def colour_bar(colours: Pixels, marks: Sequence[tuple[float, str]], unit: str, width: int, text: int) -> Pixels:
    """RGB picture [about 3 text, width, 3]: the colours from left to right, numbers under their places.

    Of two numbers that would touch the second one is left out; its line is there.

    Args:
        colours: [N, 3], RGB.
        marks: (where, from 0 to 1; number), from left to right.
        unit: written behind the last number.
        width: pixels.
        text: height of the letters in pixels.
    """
    font = ImageFont.load_default(text)
    top, band, tick = text // 2, max(8, round(0.8 * text)), max(3, text // 4)
    picture = Image.new("RGB", (width, top + band + tick + round(1.5 * text)), PAPER)
    columns = np.minimum(np.arange(width) * len(colours) // width, len(colours) - 1)
    picture.paste(Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours[columns], (band, width, 3)))), (0, top))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, top, width - 1, top + band), outline=RULE)
    for place, _ in marks:
        x = round(place * (width - 1))
        draw.line((x, top + band, x, top + band + tick), fill=INK)
    free = 0.0  # from here on to the right
    for index, (place, number) in enumerate(marks):
        length = font.getlength(number)
        begins = max(0.0, place * (width - 1) - length / 2)
        if index == len(marks) - 1:
            number = f"{number} {unit}"
            length = font.getlength(number)
        begins = max(0.0, min(begins, width - length))
        if begins >= free:
            draw.text((begins, top + band + tick), number, fill=INK, font=font, anchor="la")
            free = begins + length + text / 3
    return np.array(picture)


def round_marks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """Marks at round numbers from low to high, about so many."""
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    multiples = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1)
    return [((number * step - low) / (high - low), f"{number * step + 0.0:.6g}") for number in multiples.tolist()]
