"""Textures of made-up scenes: fields [H, W] of about -1 to 1 that lighten and darken a colour."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def noise(rng: np.random.Generator, size: tuple[int, int], cell: float, stretch: float = 1.0) -> Field:
    """Smooth noise whose grains are `cell` pixels high and `stretch` times as wide."""
    height, width = size
    grid = (max(2, round(height / cell)), max(2, round(width / (cell * stretch))))
    coarse = rng.uniform(-1, 1, grid).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def waves(rng: np.random.Generator, size: tuple[int, int], period: float, angle: float, wobble: float = 0.0) -> Field:
    """Sine stripes, `period` pixels apart; angle 0 makes them horizontal; wobble bends them (radians of phase)."""
    y, x = _axes(size)
    phase = (y * math.cos(angle) + x * math.sin(angle)) * (math.tau / period) + rng.uniform(0, math.tau)
    if wobble:
        phase = phase + wobble * noise(rng, size, 2 * period, 2.0)
    return np.sin(phase, dtype=np.float32)


def checks(rng: np.random.Generator, size: tuple[int, int], period: float, angle: float) -> Field:
    """A chequerboard of squares with sides of half a period."""
    y, x = _axes(size)
    c, s = math.cos(angle), math.sin(angle)
    down, across = (y * c + x * s) * 2 / period, (x * c - y * s) * 2 / period
    cells = np.floor(down + rng.random()) + np.floor(across + rng.random())
    return np.asarray(1 - 2 * np.mod(cells, 2), np.float32)


def grass(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Field:
    """Upright blades over patches."""
    return 0.75 * noise(rng, size, 5 * scale, 0.35) + 0.25 * noise(rng, size, 20 * scale)


def ripples(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Field:
    """Wavering horizontal lines."""
    return waves(rng, size, rng.uniform(7, 10) * scale, rng.uniform(-0.15, 0.15), wobble=1.6)


def tiles(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Field:
    """Slabs of two tones, a little worn."""
    angle = rng.uniform(-0.5, 0.5)
    return 0.75 * checks(rng, size, rng.uniform(16, 22) * scale, angle) + 0.25 * noise(rng, size, 3 * scale)


def fill(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Field:
    """The surface of an object: plain, striped, chequered or speckled, at random."""
    angle = rng.uniform(0, math.pi)
    kind = rng.integers(4)
    if kind == 0:
        return 0.3 * noise(rng, size, 8 * scale)
    if kind == 1:
        return waves(rng, size, rng.uniform(6, 10) * scale, angle)
    if kind == 2:
        return checks(rng, size, rng.uniform(8, 12) * scale, angle)
    return noise(rng, size, 3 * scale)


def slope(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """A linear ramp in a random direction, -1 to 1 across the image: light that falls off."""
    y, x = _axes(size)
    angle = rng.uniform(0, math.tau)
    ramp = y / size[0] * math.sin(angle) + x / size[1] * math.cos(angle)
    return np.asarray((ramp - ramp.min()) / (ramp.max() - ramp.min()) * 2 - 1, np.float32)


def _axes(size: tuple[int, int]) -> tuple[Field, Field]:
    """Row and column indices, [H, 1] and [1, W]."""
    return np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]
