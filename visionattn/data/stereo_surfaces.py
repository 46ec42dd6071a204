"""Surfaces of made-up stereo scenes: disparities that are functions of the left view's coordinates.

A point of a surface is named by where the left view sees it, at any real (x, y), also outside the picture; the right
view sees it at (x - disparity(x, y), y). The slope along x stays below 1, so a surface never hides itself and every
point of the right view belongs to one point of the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

STEEPEST = 0.6
"""No surface's disparity changes by more than this per pixel along x, where it is covered."""

_NEWTON_STEPS = 5


class Surface(Protocol):
    """A disparity in pixels for every (x, y) of the left view; x and y broadcast against each other."""

    def disparity(self, x: Map, y: Map) -> Map: ...

    def slope(self, x: Map, y: Map) -> Map:
        """The derivative of the disparity along x."""
        ...


@dataclass(frozen=True)
class Plane:
    """A plane in space: its disparity is linear in the picture. `at` the origin, changing `right` and `down`."""

    at: float
    right: float = 0.0
    down: float = 0.0

    def disparity(self, x: Map, y: Map) -> Map:
        return np.float32(self.right) * x + (np.float32(self.down) * y + np.float32(self.at))

    def slope(self, x: Map, y: Map) -> Map:
        return np.full(np.broadcast_shapes(x.shape, y.shape), self.right, np.float32)

    def left_of(self) -> tuple[float, float, float]:
        """(a, b, c) of a * x_right + b * y + c, the x of the left view whose point the right view sees at x_right."""
        rate = 1 / (1 - self.right)
        return rate, self.down * rate, self.at * rate


@dataclass(frozen=True)
class Quadric:
    """A plane with a bulge: + height * (1 - u^2 - v^2), u and v the distances from `center` over `radii`.

    An infinite radius makes a cylinder, a negative height a bowl.
    """

    plane: Plane
    center: tuple[float, float]
    radii: tuple[float, float]
    height: float

    def disparity(self, x: Map, y: Map) -> Map:
        u, v = self._within(x, y)
        return self.plane.disparity(x, y) + (np.float32(self.height) * (1 - v * v) - np.float32(self.height) * (u * u))

    def slope(self, x: Map, y: Map) -> Map:
        u, v = self._within(x, y)
        return self.plane.right - np.float32(2 * self.height / self.radii[0]) * u + np.zeros_like(v)

    def _within(self, x: Map, y: Map) -> tuple[Map, Map]:
        u = (x - np.float32(self.center[0])) / np.float32(self.radii[0])
        v = (y - np.float32(self.center[1])) / np.float32(self.radii[1])
        return u, v


@dataclass(frozen=True)
class Waves:
    """A plane in folds: + height * sin(2 pi (x cos(angle) + y sin(angle)) / length + phase)."""

    plane: Plane
    height: float
    length: float
    angle: float
    phase: float

    def disparity(self, x: Map, y: Map) -> Map:
        return self.plane.disparity(x, y) + np.float32(self.height) * np.sin(self._turns(x, y))

    def slope(self, x: Map, y: Map) -> Map:
        steepness = self.height * math.tau / self.length * math.cos(self.angle)
        return self.plane.right + np.float32(steepness) * np.cos(self._turns(x, y))

    def _turns(self, x: Map, y: Map) -> Map:
        across, down = math.cos(self.angle) * math.tau / self.length, math.sin(self.angle) * math.tau / self.length
        return np.float32(across) * x + (np.float32(down) * y + np.float32(self.phase))


def left_of(surface: Surface, x_right: Map, y: Map, bounds: tuple[float, float]) -> Map:
    """The x of the left view whose point the right view sees at x_right: x - disparity(x, y) = x_right.

    Args:
        surface: what is seen.
        x_right, y: coordinates in the right view.
        bounds: the least and largest x there can be; beyond them the answer is one of the two.
    """
    if isinstance(surface, Plane):
        rate, down, at = surface.left_of()
        x = np.float32(rate) * x_right + (np.float32(down) * y + np.float32(at))
        return np.asarray(np.clip(x, *bounds), np.float32)
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    x = np.clip(x_right + surface.disparity(x_right, y), low, high)
    for _ in range(_NEWTON_STEPS):
        x += (x_right + surface.disparity(x, y) - x) / (1 - surface.slope(x, y))
        np.clip(x, low, high, out=x)
    return x
