"""A window of a resized image, without resizing what lies outside it."""

from __future__ import annotations

import cv2
import numpy as np

Window = tuple[int, int, int, int]
"""top, left, bottom, right in pixels; bottom and right lie outside."""

_PHASE = 1 / 256


def fitted_size(size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest image of the same proportions within `scale`, as mmcv's `rescale_size` has it.

    Args:
        size: height and width.
        scale: the longest long side and the longest short side, in either order.
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def resized_window(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """`cv2.resize(image, size, INTER_LINEAR)[top:bottom, left:right]`, to within one or two of 256 levels.

    OpenCV resizes a piece of the image from its first pixel on. So the piece begins where a pixel of the resized image
    falls on a pixel of the image, to 1/256 of a pixel: at the nearest such row above and column left of the window.

    Args:
        image: [H, W, C] or [H, W], uint8.
        size: height and width of the whole resized image.
        window: of the resized image, inside it.
    """
    top, left, bottom, right = window
    rows, skip_rows = _piece(image.shape[0], size[0], top, bottom)
    columns, skip_columns = _piece(image.shape[1], size[1], left, right)
    factors = {"fx": size[1] / image.shape[1], "fy": size[0] / image.shape[0]}
    resized = cv2.resize(image[rows, columns], None, **factors, interpolation=cv2.INTER_LINEAR)
    return resized[skip_rows : skip_rows + bottom - top, skip_columns : skip_columns + right - left]


def _piece(length: int, resized: int, start: int, stop: int) -> tuple[slice, int]:
    """Of one axis: the pixels that `start` to `stop` of the resized one are made of, and how many come out too many."""
    step = length / resized
    before = int(np.ceil(max(resized / length - 1, 0) / 2))  # what the first one's interpolation reaches back
    starts = np.arange(max(start - before, 0), -1, -1)
    off_grid = np.abs(starts * step - np.rint(starts * step))
    anchor = int(starts[np.argmax(off_grid <= min(_PHASE, step / 4))])  # the last, 0, always is on the grid
    first = round(anchor * step)
    # One pixel more for the interpolation, one for OpenCV's rounding of the piece's resized length.
    last = min(int(np.ceil((stop - anchor) * step)) + 2 + first, length)
    return slice(first, last), start - anchor
