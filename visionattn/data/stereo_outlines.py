"""Outlines of made-up stereo objects, solid and thin: 8-bit masks whose border pixels are covered in part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.shapes import OUTLINES, place_blob, place_outline

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]

_SUBPIXEL_BITS = 4
_TURN = np.linspace(0, math.tau, 48, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def solid(rng: np.random.Generator, radius: float) -> Mask:
    """A body of about this radius in pixels: a shape of `shapes.OUTLINES`, a blob, a slab, a shard or an ellipse, some
    with a hole; [2 R + 1, 2 R + 1] around its middle."""
    kind = rng.integers(5)
    if kind == 0:
        outline = place_outline(str(rng.choice(list(OUTLINES))), (0.0, 0.0), 1.6 * radius, rng.uniform(0, math.tau))
    elif kind == 1:
        outline = place_blob(rng, (0.0, 0.0), radius)
    elif kind == 2:
        outline = bar(radius * rng.uniform(0.6, 1.1), radius * rng.uniform(0.8, 2.0), rng.uniform(0, math.pi))
    elif kind == 3:
        angles = np.sort(rng.uniform(0, math.tau, rng.integers(5, 10)))
        outline = radius * rng.uniform(0.6, 1.2, (len(angles), 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        outline = _CIRCLE * (radius, radius * rng.uniform(0.5, 1.0))
    hole = [outline * rng.uniform(0.4, 0.8)] if rng.random() < 0.15 else []
    return fill([outline, *hole])


def thin(rng: np.random.Generator, radius: float, width: float) -> Mask:
    """A pole, fence, wheel, net, wire or bush whose parts are `width` pixels thick and reach `radius` pixels from its
    middle; [2 R + 1, 2 R + 1]."""
    turn = rng.uniform(0, math.pi)
    drawers = (_pole, _fence, _wheel, _net, _wire, _bush)
    return drawers[rng.integers(len(drawers))](rng, radius, width, turn)


def _pole(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    return fill([bar(radius, width * rng.uniform(1, 2), turn)])


def _fence(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    gap = width * rng.uniform(2, 5)
    count = int(np.clip(1.4 * radius / gap, 2, 14))
    places = gap * (np.arange(count) - (count - 1) / 2)
    rails = [bar(radius, width, turn) + place * _way(turn + math.pi / 2) for place in places]
    rails.append(bar(gap * count / 2, width, turn + math.pi / 2) + rng.uniform(-0.7, 0.7) * radius * _way(turn))
    return _together([fill([rail]) for rail in rails])


def _wheel(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    spokes = [fill([bar(radius, max(width / 2, 2), turn + k * math.pi / 4)]) for k in range(int(rng.integers(0, 5)))]
    return _together([fill([_CIRCLE * radius, _CIRCLE * (radius - width)]), *spokes])


def _net(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    gap = max(radius / rng.uniform(2, 5), 3 * width)
    wires = [
        fill([bar(radius, width, angle) + place * _way(angle + math.pi / 2)])
        for angle in (turn, turn + math.pi / 2)
        for place in np.arange(-radius, radius + 1, gap)
    ]
    return _together(wires)


def _wire(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    along = np.linspace(-radius, radius, 60)
    sway = np.zeros_like(along)
    for k in (1, 2, 3):
        sway += radius * rng.uniform(-0.2, 0.2) * np.sin(along * (2 * k / radius) + rng.uniform(0, math.tau))
    return stroke([along[:, None] * _way(turn) + sway[:, None] * _way(turn + math.pi / 2)], width)


def _bush(rng: np.random.Generator, radius: float, width: float, turn: float) -> Mask:
    twigs = [np.array([-radius * _way(turn), radius * _way(turn)])]
    for _ in range(int(rng.integers(5, 15))):
        parent = twigs[rng.integers(len(twigs))]
        begin = parent[0] + rng.uniform(0.3, 1.0) * (parent[1] - parent[0])
        reach = 0.55 * float(np.hypot(*(parent[1] - parent[0])))
        twigs.append(np.array([begin, begin + reach * _way(rng.normal(turn, 0.9))]))
    return stroke(twigs, width)


def bar(half_length: float, width: float, turn: float) -> Points:
    """The corners [4, 2] of a bar around the origin that points along `turn`, in radians."""
    along, across = half_length * _way(turn), width / 2 * _way(turn + math.pi / 2)
    return np.stack([along + across, along - across, -along - across, -along + across])


def fill(contours: Sequence[Points]) -> Mask:
    """The inside of the first polygon [K, 2] (x, y) but not of those within it, [2 R + 1, 2 R + 1] around (0, 0).

    OpenCV's anti-aliased lines, which end it, reach up to a pixel over the outline.
    """
    canvas, corner = _canvas(contours, 0)
    cv2.fillPoly(canvas, [_fixed(c + corner) for c in contours], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return canvas


def stroke(lines: Sequence[Points], width: float) -> Mask:
    """Polylines [K, 2] (x, y), a pixel or two thicker than `width`, [2 R + 1, 2 R + 1] around (0, 0)."""
    canvas, corner = _canvas(lines, width)
    paths = [_fixed(line + corner) for line in lines]
    cv2.polylines(canvas, paths, False, 255, max(1, round(width)), lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return canvas


def _canvas(points: Sequence[Points], margin: float) -> tuple[Mask, float]:
    """An empty mask around the origin that has room for the points; and half its side."""
    reach = math.ceil(max(float(np.abs(p).max()) for p in points) + margin) + 4
    return np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8), float(reach)


def _together(masks: Sequence[Mask]) -> Mask:
    """What any of these masks covers; all are around one point."""
    reach = max(len(mask) for mask in masks) // 2
    together = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    for mask in masks:
        inner = slice(reach - len(mask) // 2, reach + len(mask) // 2 + 1)
        np.maximum(together[inner, inner], mask, out=together[inner, inner])
    return together


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _way(angle: float) -> Points:
    return np.array([math.cos(angle), math.sin(angle)])
