"""Whether two images are the left and the right one, by which way they match."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTH = 240  # pixels at which the images are compared
_FARTHEST = 60  # shift that is looked for, a quarter of it
_WINDOW = 7
_CLEAR = 0.8  # of one way's differences at which the other way counts as clearly better


def looks_swapped(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> bool:
    """Whether the right image's things stand further right than the left image's: then the two are mixed up.

    Windows of the left image are looked for to both sides in the right one. Where neither side is clearly better (no
    texture, everything far away) the answer is no.

    Args:
        left, right: [H, W, 3] of one size, RGB, 8 bit.
    """
    if left.shape[1] < 2 * _WINDOW or left.shape[0] < _WINDOW:
        return False
    one, other = (_small(image) for image in (left, right))
    farthest = min(_FARTHEST, one.shape[1] // 3)
    as_given, swapped = (_difference(one, other, farthest, way) for way in (-1, 1))
    return bool(swapped < _CLEAR * as_given)


def _small(image: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Details of a grey picture at most so wide, of deviation 1: two cameras need not be equally bright."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)
    if grey.shape[1] > _WIDTH:
        height = max(_WINDOW, round(grey.shape[0] * _WIDTH / grey.shape[1]))
        grey = np.asarray(cv2.resize(grey, (_WIDTH, height), interpolation=cv2.INTER_AREA), np.float32)
    details = grey - cv2.GaussianBlur(grey, (0, 0), 4)
    return details / max(float(details.std()), 1e-3)


def _difference(one: NDArray[np.floating], other: NDArray[np.floating], farthest: int, way: int) -> float:
    """Mean over windows of the least difference at any shift that way, no shift included."""
    width = one.shape[1]
    middle = slice(farthest, width - farthest)  # seen by the other image at every shift
    least = np.full((one.shape[0], width - 2 * farthest), np.inf, np.float32)
    for shift in range(farthest + 1):
        start = farthest + way * shift
        shifted = other[:, start : start + least.shape[1]]
        np.minimum(least, cv2.boxFilter(np.abs(one[:, middle] - shifted), -1, (_WINDOW, _WINDOW)), out=least)
    return float(least.mean())
