"""Curves, two of whose ends carry a dot: is a pixel on the curve that joins the two dots?

After Pathfinder (Linsley et al., NeurIPS 2018; Tay et al., Long Range Arena, ICLR 2021), which asks one question of the
whole picture. Here each pixel of a curve asks it, and only the far ends of the curve answer: a pixel has to know where
the dots are, and which curve is the same as its own. With `hues` that is a colour, and one look at the dots is enough;
without, every curve is grey and must be followed, which is much harder to learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.longrange_drawing import Canvas, bright

PATHFINDER_CLASSES = ("ground", "another curve", "joins the dots")
PATHFINDER_PALETTE = ((90, 90, 90), (86, 180, 233), (230, 159, 0))

_THICKNESS, _DOT = 4, 4.0  # pixels
_GAP = 10.0  # between the middles of two curves
_MARGIN = 6.0
_STEP = 2.0  # between two points of a curve
_LENGTHS = 0.7, 0.9  # of the shorter side
_CANDIDATES = 150  # places tried at once for a curve, which is left out where none is free
_JOINED = 1 / 2  # share of the pictures in which one curve has both dots: then one dot tells nothing of the other


@dataclass(frozen=True)
class Pathfinder:
    """What is in a picture.

    Attributes:
        size: H, W.
        curves: points [T, 2] (x, y) of each; they do not touch.
        hues: of each, 0 to 1, all different; None is grey.
        dots: the two ends that carry a dot: (number of the curve, 0 or -1).
        seed: of ground, shades and noise.
    """

    size: tuple[int, int]
    curves: tuple[NDArray[np.float64], ...]
    hues: tuple[float | None, ...]
    dots: tuple[tuple[int, int], tuple[int, int]]
    seed: int

    @property
    def joined(self) -> int | None:
        """The number of the curve with both dots."""
        (first, _), (second, _) = self.dots
        return first if first == second else None


def compose_pathfinder(
    rng: np.random.Generator, size: tuple[int, int] = (96, 96), curves: int = 3, hues: int = 3
) -> Pathfinder:
    """A random picture.

    Args:
        size: height and width, 48 or more.
        curves: as many, or those that find room (two at least).
        hues: how many there are to choose from, `curves` or more; 0 makes every curve grey.
    Raises:
        ValueError: an argument's value.
    """
    if min(size) < 48:
        raise ValueError(f"size={size} must be 48 pixels or more on either side")
    if curves < 2:
        raise ValueError(f"curves={curves} must be 2 or more: one is joined, or each of two has a dot")
    if hues and hues < curves:
        raise ValueError(f"hues={hues} must be at least curves={curves}, so that all differ, or 0 for grey curves")
    placed: list[NDArray[np.float64]] = []
    while len(placed) < 2:  # a direction in which no two fit is given up
        placed = _place_curves(rng, size, curves)
    chosen = rng.permutation(hues)[: len(placed)] / hues if hues else [None] * len(placed)
    first, second = (int(number) for number in rng.permutation(len(placed))[:2])
    if rng.random() < _JOINED:
        dots = ((first, 0), (first, -1))
    else:
        dots = ((first, -int(rng.integers(2))), (second, -int(rng.integers(2))))
    hue_of = tuple(None if hue is None else float(hue) for hue in chosen)
    return Pathfinder(size, tuple(placed), hue_of, dots, int(rng.integers(2**31)))


def draw_pathfinder(scene: Pathfinder) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [H, W, 3] (RGB) and labels [H, W]: of PATHFINDER_CLASSES, 255 at the rims."""
    rng = np.random.default_rng(scene.seed)
    canvas = Canvas(rng, scene.size)
    labels = [2 if number == scene.joined else 1 for number in range(len(scene.curves))]
    grey = bright(rng, None)  # one for all: a shade would name its curve as a hue does
    for curve, hue, label in zip(scene.curves, scene.hues, labels, strict=True):
        canvas.line(curve, _THICKNESS, grey if hue is None else bright(rng, hue), label)
    for number, end in scene.dots:
        canvas.disc(scene.curves[number][end], _DOT, (0.97, 0.97, 0.97), labels[number])
    return canvas.finished(rng)


def best_local_answer(
    scene: Pathfinder, labels: NDArray[np.uint8], distance: int, one_dot: int, unknown: int
) -> NDArray[np.uint8]:
    """The labels [H, W] that follow from what lies near each pixel.

    An end of its own curve without a dot, or a dot on another curve, makes a pixel one of another curve; both ends
    with a dot say that its curve joins them. One dot alone leaves both as likely.

    Args:
        labels: as drawn.
        distance: half the side of the square that is seen.
        one_dot: the answer where one dot of the pixel's own curve is all that is seen.
        unknown: the answer where nothing is seen.
    """
    answer = np.full(scene.size, unknown, np.uint8)
    seen = {
        (number, end): _square_around(curve[end], distance + math.ceil(_DOT), scene.size)
        for number, curve in enumerate(scene.curves)
        for end in (0, -1)
    }
    for number, curve in enumerate(scene.curves):
        points, body = np.round(curve).astype(np.int32), np.zeros(scene.size, np.uint8)
        own = cv2.polylines(body, [points], False, 1, 3 * _THICKNESS).astype(bool) & (labels > 0)
        ends = [seen[number, end] for end in (0, -1)]
        for place in (seen[dot] for dot in scene.dots if dot[0] == number):
            answer[own & place] = one_dot
        answer[own & ends[0] & ends[1]] = 2
        bare = [seen[number, end] for end in (0, -1) if (number, end) not in scene.dots]
        elsewhere = [seen[dot] for dot in scene.dots if dot[0] != number]
        for place in (*bare, *elsewhere):
            answer[own & place] = 1
    return np.where(labels == 0, labels, answer)


def _square_around(point: NDArray[np.float64], reach: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    inside = np.zeros(size, bool)
    column, row = np.round(point).astype(int)
    inside[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    return inside


def _place_curves(rng: np.random.Generator, size: tuple[int, int], curves: int) -> list[NDArray[np.float64]]:
    """Curves that run about in one direction and keep apart."""
    heading = rng.uniform(0, math.tau)
    free = np.ones(size, np.uint8)
    placed: list[NDArray[np.float64]] = []
    for _ in range(curves):
        candidates = _candidates(rng, size, heading)
        if placed:
            cv2.polylines(free, [np.round(placed[-1]).astype(np.int32)], False, 0)
        apart = cv2.distanceTransform(free, cv2.DIST_L2, 3) if placed else np.full(size, np.inf)
        x, y = np.moveaxis(np.round(candidates).astype(int), -1, 0)
        fits = np.flatnonzero(apart[y, x].min(axis=1, initial=np.inf) >= _GAP)
        placed += [candidates[index] for index in fits[:1]]
    return placed


def _candidates(rng: np.random.Generator, size: tuple[int, int], heading: float) -> NDArray[np.float64]:
    """Curves [K, T, 2] inside the picture."""
    height, width = size
    along = np.linspace(0, 1, round(rng.uniform(*_LENGTHS) * min(size) / _STEP))
    # The direction swings, never by a right angle: so the curve does not meet itself.
    ends = ((0.2, 1.0), (0.5, 1.5), (0.0, math.tau))
    swing, waves, phase = (rng.uniform(low, high, (_CANDIDATES, 1)) for low, high in ends)
    direction = heading + rng.uniform(-0.3, 0.3, (_CANDIDATES, 1)) + swing * np.sin(math.tau * waves * along + phase)
    points = np.cumsum(_STEP * np.stack([np.cos(direction), np.sin(direction)], axis=-1), axis=1)
    low, high = points.min(axis=1), points.max(axis=1)
    room = np.array([width - 1, height - 1]) - 2 * _MARGIN - (high - low)
    points += (_MARGIN - low + rng.random((_CANDIDATES, 2)) * room)[:, None]
    return np.asarray(points[(room >= 0).all(axis=1)])
