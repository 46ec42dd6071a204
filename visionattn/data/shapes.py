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
    "star": _radial(np.arange(10) * math.tau / 10, np.where(np.arange(10) % 2, 0.45, 1.0)),
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
    return (points - (low + high) / 2) * (extent / (high - low).min()) + center


def place_blob(rng: np.random.Generator, center: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """The polygon [K, 2] of a smooth random blob around a center, in pixels."""
    radii = np.full_like(_STEPS, radius)
    for lobes in (2, 3, 5):
        radii += radius * rng.uniform(-0.2, 0.2) * np.cos(lobes * _STEPS + rng.uniform(0, math.tau))
    return _radial(_STEPS, radii) + center


def cover(polygon: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """How much of each pixel the polygon covers, [H, W] from 0 to 1 (anti-aliased; the object is where it is > 0.5)."""
    canvas = np.zeros(size, np.uint8)
    points = np.round(polygon * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return canvas.astype(np.float32) / np.float32(255)
