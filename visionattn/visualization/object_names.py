"""Names at boxes: inside the picture, beside each other, off small objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visionattn.visualization.tiles import Pixels

_LETTERS = 12  # pixels
_MARGIN = 2
_BRIGHT = 140  # luma from which on black letters are read more easily than white ones
_SMALL = 9  # a box of up to so many squares as high as a name is hidden by one
_ROOMY = 4  # a box of so many times its name's area has room for it inside

Place = tuple[int, int]
"""Left and top of a name, pixels."""
Area = Sequence[int]
"""Left, top, right, bottom, pixels."""


def write_names(
    picture: Pixels, boxes: NDArray[np.int64], names: Sequence[str], colours: Sequence[Sequence[int]]
) -> Pixels:
    """The picture with each box's name on a patch of its colour.

    A large box has its name inside at the upper left corner, a small one above or below it. A place where another name
    stands already is avoided while there are others, then one on another small object. No name is cut off by the border
    unless it is wider than the picture.

    Args:
        picture: [H, W, 3], RGB.
        boxes: [N, 4], left, top, right, bottom in its pixels; small ones choose their places first.
        names, colours: of the boxes.
    """
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(_LETTERS)
    height, width = picture.shape[:2]
    tall = round(1.3 * _LETTERS)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    small = [box for box, area in zip(boxes.tolist(), areas, strict=True) if area <= _SMALL * tall * tall]
    taken: list[Area] = []
    for index in np.argsort(areas, kind="stable"):
        wide = round(font.getlength(names[index])) + 2 * _MARGIN
        left, top = _free_place(boxes[index].tolist(), (wide, tall), (width, height), taken, small)
        taken.append((left, top, left + wide, top + tall))
        colour = tuple(int(value) for value in colours[index])
        draw.rectangle((left, top, left + wide - 1, top + tall - 1), fill=colour)
        letters = "black" if _luma(colour) > _BRIGHT else "white"
        draw.text((left + _MARGIN, top), names[index], fill=letters, font=font)
    return np.array(drawn)


def _free_place(
    box: Area, size: tuple[int, int], picture: tuple[int, int], taken: Sequence[Area], small: Sequence[Area]
) -> Place:
    """Where a name of this width and height covers least of the others, and then of the small objects."""
    left, top, right, bottom = box
    wide, tall = size
    inside = [(left, top), (right - wide + 1, top), (left, bottom - tall + 1), (right - wide + 1, bottom - tall + 1)]
    columns, rows = (left, right - wide + 1), (top - tall, bottom + 1)
    outside = [(x, y) for x in columns for y in rows]
    outside += [(right + 1, top), (left - wide, top)]
    outside += [(x, y) for x in columns for y in (top - 2 * tall, bottom + 1 + tall)]  # where it is crowded
    roomy = (right - left) * (bottom - top) >= _ROOMY * wide * tall and right - left >= wide
    places = [*inside, *outside] if roomy else [*outside, *inside]
    within = [_moved_inside(place, size, picture) for place in places]
    # One that had to be moved lies on the small object after all: it comes after those that fit.
    ordered = [new for new, old in zip(within, places, strict=True) if new == old]
    ordered += [new for new, old in zip(within, places, strict=True) if new != old]
    return min(
        ordered, key=lambda place: tuple(sum(_shared(place, size, one) for one in some) for some in (taken, small))
    )


def _moved_inside(place: Place, size: tuple[int, int], picture: tuple[int, int]) -> Place:
    left, top = (max(0, min(at, whole - own)) for at, own, whole in zip(place, size, picture, strict=True))
    return left, top


def _shared(place: Place, size: tuple[int, int], other: Area) -> int:
    """Pixels that a name here and another one share."""
    wide = min(place[0] + size[0], other[2]) - max(place[0], other[0])
    tall = min(place[1] + size[1], other[3]) - max(place[1], other[1])
    return max(wide, 0) * max(tall, 0)


def _luma(colour: Sequence[int]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
