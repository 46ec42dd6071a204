"""Outlines of made-up objects, and how much of each pixel they cover."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_SUBPIXEL_BITS = 4
_STEPS = np.linspace(0, 2 * math.pi, 72, endpoint=False)


def _radial(angles: NDArray[np.float64], radii: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


OUTLINES: dict[str, NDArray[np.float64]] = {
    "disk": _radial(_STEPS, 1.0),
    "square": _radial(np.arange(4) * math.pi / 2 + math.pi / 4, 1.0),
    "triangle": _radial(np.arange(3) * math.tau / 3, 1.0),
    "star": _radial(np.arange(10) * math.tau / 10, np.where(np.arange(10) % 2, 0.5, 1.0)),
    "flower": _radial(_STEPS, 0.45 + 0.55 * np.abs(np.cos(2 * _STEPS))),
}
"""Unit polygons [K, 2] of x (right) and y (down)."""


def place_outline(name: str, center: tuple[float, float], extent: float, angle: float = 0.0) -> NDArray[np.float64]:
    """The outline's polygon [K, 2] in pixels (x, y).

    Args:
        name: one of OUTLINES.
        center: x, y of the middle of its bounding box.
        extent: the shorter side of its bounding box, in pixels.
        angle: radians, clockwise.
    """
    c, s = math.cos(angle), math.sin(angle)
    points = OUTLINES[name] @ np.array([[c, s], [-s, c]])
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) * (extent / (high - low).min()) + center)


def place_blob(rng: np.random.Generator, center: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """The polygon [K, 2] of a smooth random blob around a center, in pixels."""
    radii = np.full_like(_STEPS, radius)
    for lobes in (2, 3, 5):
        radii += radius * rng.uniform(-0.2, 0.2) * np.cos(lobes * _STEPS + rng.uniform(0, math.tau))
    return _radial(_STEPS, radii) + center


def cover(
    polygon: NDArray[np.float64], size: tuple[int, int], margin: int = 0
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Where a polygon is in an image and how much of each pixel there it covers, anti-aliased.

    Args:
        polygon: [K, 2], x and y in pixels; may reach out of the image.
        size: height and width of the image.
        margin: pixels around the polygon that the window takes in.
    Returns:
        The window (rows, columns) of the image, and its cover [h, w] from 0 to 1. Object is what is covered more than
        half.
    """
    low = np.maximum(np.floor(polygon.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 1 + margin, size[::-1])
    width, height = np.maximum(high - low, 0)
    canvas = np.zeros((height, width), np.uint8)
    points = np.round((polygon - low) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    if canvas.size:
        cv2.fillPoly(canvas, [points], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    window = slice(low[1], low[1] + height), slice(low[0], low[0] + width)
    return window, np.divide(canvas, 255, dtype=np.float32)
