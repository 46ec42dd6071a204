"""Discs that take their class from a vote: of which colour are most of the marks in the picture?

Grey discs and small coloured marks lie scattered over the picture. Every disc of it is of the class that the colour
of two thirds of the marks says. A disc sees no vote by itself, and of the marks around it too few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionattn.data.longrange_drawing import Canvas, bright

MAJORITY_CLASSES = ("ground", "warm disc", "cool disc")
MAJORITY_PALETTE = ((90, 90, 90), (213, 94, 0), (0, 114, 178))

_WARM, _COOL = 0.06, 0.58  # hues
_MARK = 2.5  # radius, pixels
_RADII = 5.0, 8.0
_GAP = 3.0  # between two shapes
_TRIALS = 60  # places tried for a shape before it is left out


@dataclass(frozen=True)
class Majority:
    """What is in a picture.

    Attributes:
        size: H, W.
        discs: (x, y, radius) of each.
        marks: (x, y) of each.
        warm: whether each mark is.
        seed: of ground, shades and noise.
    """

    size: tuple[int, int]
    discs: tuple[tuple[float, float, float], ...]
    marks: tuple[tuple[float, float], ...]
    warm: tuple[bool, ...]
    seed: int

    @property
    def outcome(self) -> bool:
        """Whether most marks are warm."""
        return 2 * sum(self.warm) > len(self.warm)


def compose_majority(
    rng: np.random.Generator, size: tuple[int, int] = (96, 96), discs: int = 6, marks: int = 9
) -> Majority:
    """A random picture.

    Args:
        size: height and width, 48 or more.
        discs: as many, or those that find room (one at least).
        marks: as many votes, or those that find room.
    Raises:
        ValueError: an argument's value, or a picture too small for so much.
    """
    if min(size) < 48:
        raise ValueError(f"size={size} must be 48 pixels or more on either side")
    if discs < 1 or marks < 3:
        raise ValueError(f"discs={discs} must be 1 or more, marks={marks} 3 or more")
    placed: list[tuple[float, float, float]] = []
    for radius in rng.uniform(*_RADII, discs):
        placed += _free_place(rng, size, float(radius), placed)
    bodies = len(placed)
    for _ in range(marks):
        placed += _free_place(rng, size, _MARK, placed)
    votes = len(placed) - bodies
    if votes < marks - marks // 3:
        raise ValueError(f"size={size} has no room for {discs} discs and {marks} marks; make it larger")
    lead = -(-2 * votes // 3)  # no more than needed: the few marks around a disc often say the contrary
    warm = rng.permutation(np.arange(votes) < lead) == (rng.random() < 0.5)
    return Majority(
        size,
        tuple(placed[:bodies]),
        tuple((x, y) for x, y, _ in placed[bodies:]),
        tuple(bool(vote) for vote in warm),
        int(rng.integers(2**31)),
    )


def draw_majority(scene: Majority) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [H, W, 3] (RGB) and labels [H, W]: of MAJORITY_CLASSES, 255 at the rims of the discs; marks are ground."""
    rng = np.random.default_rng(scene.seed)
    canvas = Canvas(rng, scene.size)
    for x, y, radius in scene.discs:
        canvas.disc(np.array([x, y]), radius, bright(rng, None), 1 if scene.outcome else 2)
    labels = canvas.labels.copy()
    for (x, y), warm in zip(scene.marks, scene.warm, strict=True):
        canvas.disc(np.array([x, y]), _MARK, bright(rng, _WARM if warm else _COOL), 0)
    image, _ = canvas.finished(rng)
    return image, labels


def local_lead(scene: Majority, distance: int) -> NDArray[np.int64]:
    """Warm marks less cool ones [H, W] in a square of this many pixels around: all that it tells of the outcome."""
    lead = np.zeros(scene.size, np.int64)
    for (x, y), warm in zip(scene.marks, scene.warm, strict=True):
        reach = distance + math.ceil(_MARK)
        rows, columns = (slice(max(0, round(at) - reach), round(at) + reach + 1) for at in (y, x))
        lead[rows, columns] += 1 if warm else -1
    return lead


def _free_place(
    rng: np.random.Generator, size: tuple[int, int], radius: float, placed: list[tuple[float, float, float]]
) -> list[tuple[float, float, float]]:
    """A place for something of this radius away from what is placed; none if none was found."""
    edge = radius + 2
    x, y = (rng.uniform(edge, extent - 1 - edge, _TRIALS) for extent in size[::-1])
    free = np.ones(_TRIALS, bool)
    for other_x, other_y, other_radius in placed:
        free &= np.hypot(x - other_x, y - other_y) >= radius + other_radius + _GAP
    return [(float(x[index]), float(y[index]), radius) for index in np.flatnonzero(free)[:1]]
