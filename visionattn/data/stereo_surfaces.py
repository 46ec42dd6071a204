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

_NEWTON_STEPS = 4


class Surface(Protocol):
    """A disparity in pixels for every (x, y) of the left view; x and y broadcast against each other."""

    def disparity(self, x: Map, y: Map) -> Map: ...

    def slope(self, x: Map, y: Map) -> Map:
        """The derivative of the disparity along x."""
        ...

    def left_of(self, x_right: Map, y: Map) -> Map:
        """The x of the left view whose point the right view sees at x_right: x - disparity(x, y) = x_right.

        Far from where the surface is covered, anything on the same side of it.
        """
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

    def left_of(self, x_right: Map, y: Map) -> Map:
        rate, down, at = self.left_of_terms()
        return np.float32(rate) * x_right + (np.float32(down) * y + np.float32(at))

    def left_of_terms(self) -> tuple[float, float, float]:
        """(a, b, c) of `left_of` = a * x_right + b * y + c."""
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

    def left_of(self, x_right: Map, y: Map) -> Map:
        # With t = x - center: bend t^2 + rate t = rest, the root that stays finite where bend is 0.
        rate, bend = 1 - self.plane.right, self.height / self.radii[0] ** 2
        v = (y - np.float32(self.center[1])) / np.float32(self.radii[1])
        at = self.plane.at + self.height - self.center[0] * rate
        rest = x_right + (np.float32(self.plane.down) * y + np.float32(at) - np.float32(self.height) * (v * v))
        root = np.sqrt(np.maximum(np.float32(rate * rate) + np.float32(4 * bend) * rest, 0))
        return 2 * rest / (np.float32(rate) + root) + np.float32(self.center[0])

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

    def left_of(self, x_right: Map, y: Map) -> Map:
        x = self.plane.left_of(x_right, y)
        for _ in range(_NEWTON_STEPS):
            x = x + (x_right + self.disparity(x, y) - x) / (1 - self.slope(x, y))
        return x

    def _turns(self, x: Map, y: Map) -> Map:
        across, down = math.cos(self.angle) * math.tau / self.length, math.sin(self.angle) * math.tau / self.length
        return np.float32(across) * x + (np.float32(down) * y + np.float32(self.phase))
