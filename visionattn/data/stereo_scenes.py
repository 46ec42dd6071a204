"""Made-up stereo scenes: what stands where, before it is drawn.

Layers in a common space of left-view coordinates and disparities: a backdrop, floors and walls behind everything, then
bodies, boxes and thin things in front, slanted, curved and folded. Nothing is sorted: at every pixel the layer with the
largest disparity is seen, so layers may run through each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionattn.data.stereo_boxes import box_faces
from visionattn.data.stereo_outlines import Mask, solid, thin
from visionattn.data.stereo_surfaces import STEEPEST, Map, Plane, Quadric, Surface, Waves
from visionattn.data.stereo_textures import Pattern, draw_patterns

SMALLEST_SIDE = 64
"""The shortest side, in pixels, that a stereo scene can have."""

Span = tuple[float, float]
Shaper = Callable[[np.random.Generator, float, float, Span, Span], Surface]
"""Makes a random surface: `middle` +- `room` disparities over a window of these columns and rows."""

_OBJECTS = (16, 40)  # in a picture of the usual area; fewer in a smaller one
_USUAL_AREA = 540 * 960
_SHARE_THIN, _SHARE_BOX = 0.22, 0.16


@dataclass(frozen=True)
class Layer:
    """A textured surface, as far as its cover reaches.

    Attributes:
        surface: its disparity, a function of left-view coordinates.
        cover: 8 bits, solid from 128 on, between pixels linear along x; None is everywhere.
        corner: x, y of the cover's first pixel.
        texels: [2, 3], from (x, y, 1) of the left view to column and row of its texture.
        tile: height and width of the texture, all of what the cover needs.
        texture: seeds it.
        gloss: how much slopes along x lighten it.
    """

    surface: Surface
    cover: Mask | None
    corner: tuple[int, int]
    texels: NDArray[np.float64]
    tile: tuple[int, int]
    texture: int
    gloss: float = 0.0

    def covers(self, x: Map, y: Map) -> NDArray[np.bool_]:
        """Whether there is anything of it at (x, y), x real and y whole, which broadcast against each other."""
        if self.cover is None:
            return np.ones(np.broadcast_shapes(x.shape, y.shape), bool)
        width = self.cover.shape[1]
        column = np.clip(x - np.float32(self.corner[0]), 0, width - 1)
        before = np.minimum(column.astype(np.int32), width - 2)
        place = before + (y.astype(np.int32) - self.corner[1]) * width
        flat = self.cover.ravel()
        here, there = flat.take(place).astype(np.float32), flat.take(place + 1)
        return np.asarray(here + (there - here) * (column - before) >= 127.5)


@dataclass(frozen=True)
class StereoScene:
    """Layers in no order, the size H, W of either view, and the patterns that the layers' textures are made of."""

    size: tuple[int, int]
    layers: tuple[Layer, ...]
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True)
class _Space:
    """What a scene may use: size H, W of the views, disparities from `far` to `near`."""

    size: tuple[int, int]
    far: float
    near: float

    @property
    def reach(self) -> float:
        """The largest x of the left view's coordinates whose point the right view can see."""
        return self.size[1] - 1 + self.near


def compose_stereo(
    rng: np.random.Generator, size: tuple[int, int], max_disparity: float, crowd: float = 1.0
) -> StereoScene:
    """A random scene whose disparities lie from 0 to below `max_disparity`, often below a fraction of it.

    Args:
        crowd: how many things stand in it, as a share of the usual number.
    """
    near = max_disparity * (0.98 - 0.65 * rng.random() ** 1.6)
    far = near * rng.uniform(0.01, 0.3) ** 1.5
    space = _Space(size, far, near)
    layers = list(_backgrounds(rng, space))
    crowd *= np.clip(math.sqrt(size[0] * size[1] / _USUAL_AREA), 0.4, 1)
    for _ in range(round(crowd * rng.uniform(*_OBJECTS))):
        draw = rng.random()
        if draw < _SHARE_THIN:
            layers.append(_thin_thing(rng, space))
        elif draw < _SHARE_THIN + _SHARE_BOX:
            layers += _box(rng, space)
        else:
            layers.append(_body(rng, space))
    side = int(np.clip(0.8 * max(size), 96, 448)) // 2 * 2
    return StereoScene(size, tuple(layers), tuple(draw_patterns(rng, 3 + side // 110, side)))


def _backgrounds(rng: np.random.Generator, space: _Space) -> Iterator[Layer]:
    """A backdrop, and at random a floor, a ceiling and walls: whichever is nearer is seen."""
    (height, width), far, near = space.size, space.far, space.near
    back = far + (near - far) * rng.uniform(0.03, 0.45)
    shaped: Shaper = tilted if rng.random() < 0.7 else folded
    yield _everywhere(rng, space, shaped(rng, (far + back) / 2, (back - far) / 2, (0, space.reach), (0, height)))
    full = near * rng.uniform(0.35, 0.95, 4)
    if rng.random() < 0.65:
        horizon, lean = rng.uniform(0.2, 0.8) * height, rng.uniform(-0.15, 0.15) * full[0] / space.reach
        down = (full[0] - abs(lean) * space.reach) / (height - horizon)
        yield _everywhere(rng, space, Plane(-down * horizon - min(lean, 0) * space.reach, lean, down))
    if rng.random() < 0.25:
        down = full[1] / (rng.uniform(0.15, 0.5) * height)
        yield _everywhere(rng, space, Plane(full[1], 0, -down))
    if rng.random() < 0.25:
        slope = min(STEEPEST, full[2] / (rng.uniform(0.2, 0.7) * width))
        yield _everywhere(rng, space, Plane(full[2], -slope, 0))
    if rng.random() < 0.25:
        begin = rng.uniform(0.3, 0.9) * width
        slope = min(STEEPEST, full[3] / (space.reach - begin))
        yield _everywhere(rng, space, Plane(-slope * begin, slope, 0))


def _body(rng: np.random.Generator, space: _Space) -> Layer:
    """A solid thing with a flat, bulging or folded face."""
    closeness = rng.random()
    radius = min(space.size) * float(np.exp(rng.uniform(math.log(0.04), math.log(0.3)))) * (0.6 + 0.8 * closeness)
    cover = solid(rng, max(radius, 4.0))
    face = rng.random()
    return _placed(rng, space, cover, closeness, tilted if face < 0.4 else bulging if face < 0.82 else folded)


def _thin_thing(rng: np.random.Generator, space: _Space) -> Layer:
    """Something of thin parts, flat or bent."""
    closeness = rng.random()
    radius = max(8.0, min(space.size) * float(np.exp(rng.uniform(math.log(0.1), math.log(0.5)))))
    width = max(2.0, min(space.size) / 540 * float(np.exp(rng.uniform(math.log(2), math.log(14)))))
    return _placed(rng, space, thin(rng, radius, width), closeness, tilted if rng.random() < 0.7 else bulging)


def _placed(rng: np.random.Generator, space: _Space, cover: Mask, closeness: float, shaped: Shaper) -> Layer:
    """A thing of this cover and shape somewhere in the scene, near if closeness is near 1."""
    half = len(cover) // 2
    x, y = rng.uniform(0, space.size[1] + 0.6 * space.near), rng.uniform(0, space.size[0])
    corner = int(x) - half, int(y) - half
    across, down = (corner[0], corner[0] + 2 * half), (corner[1], corner[1] + 2 * half)
    middle = space.far + (space.near - space.far) * (0.03 + 0.93 * closeness)
    room = 0.9 * min(middle, space.near - middle)
    surface = shaped(rng, middle, room, across, down)
    return _textured(rng, space, surface, cover, corner)


def _box(rng: np.random.Generator, space: _Space) -> list[Layer]:
    """The faces of a box; none where it would come too near or be too steep."""
    closeness = rng.random()
    radius = min(space.size) * float(np.exp(rng.uniform(math.log(0.06), math.log(0.25)))) * (0.6 + 0.8 * closeness)
    center = rng.uniform(0, space.size[1] + 0.5 * space.near), rng.uniform(0, space.size[0])
    middle = space.far + (space.near - space.far) * (0.06 + 0.8 * closeness)
    faces = box_faces(rng, space.size, center, middle, radius, space.near)
    return [_textured(rng, space, plane, cover, corner) for plane, cover, corner in faces]


def tilted(
    rng: np.random.Generator, middle: float, room: float, across: Span, down: Span, steepest: float = 0.45
) -> Plane:
    """A plane in a random tilt, `middle` +- `room` at most over a window, whose slopes are `steepest` at most."""
    slopes = rng.normal(0, 0.25, 2) * (0.1 if rng.random() < 0.3 else 1.0)
    slopes = np.clip(slopes, -steepest, steepest)
    half = np.array([across[1] - across[0], down[1] - down[0]]) / 2
    change = float(np.abs(slopes) @ half)
    slopes *= min(1.0, room / max(change, 1e-6))
    right, lower = float(slopes[0]), float(slopes[1])
    return Plane(middle - right * (across[0] + half[0]) - lower * (down[0] + half[1]), right, lower)


def bulging(rng: np.random.Generator, middle: float, room: float, across: Span, down: Span) -> Quadric:
    """A cylinder, dome or bowl over a window, `middle` +- `room` at most."""
    plane = tilted(rng, middle, 0.4 * room, across, down, 0.25)
    half = (across[1] - across[0]) / 2, (down[1] - down[0]) / 2
    radii = [half[0] * rng.uniform(1, 1.5), half[1] * rng.uniform(1, 1.5)]
    if rng.random() < 0.35:
        radii[int(rng.integers(2))] = math.inf
    height = min(0.55 * room, (STEEPEST - abs(plane.right)) * radii[0] / 2, 0.35 * max(half))
    height *= rng.uniform(0.3, 1.0) * (1 if rng.random() < 0.75 else -1)
    return Quadric(plane, (across[0] + half[0], down[0] + half[1]), (radii[0], radii[1]), float(height))


def folded(rng: np.random.Generator, middle: float, room: float, across: Span, down: Span) -> Waves:
    """Folds on a tilted plane, a quarter of the window's height long or more, `middle` +- `room` at most."""
    length = rng.uniform(0.25, 1.0) * (down[1] - down[0])
    plane = tilted(rng, middle, 0.5 * room, across, down, 0.25)
    height = rng.uniform(0.3, 1.0) * min(0.5 * room, (STEEPEST - abs(plane.right)) * length / math.tau)
    return Waves(plane, height, length, rng.uniform(0, math.pi), rng.uniform(0, math.tau))


def _everywhere(rng: np.random.Generator, space: _Space, surface: Surface) -> Layer:
    return _textured(rng, space, surface, None, (0, 0))


def _textured(
    rng: np.random.Generator, space: _Space, surface: Surface, cover: Mask | None, corner: tuple[int, int]
) -> Layer:
    """A layer with a texture of its own, turned and scaled at random, as large as the layer."""
    scale = rng.uniform(0.6, 1.3)
    if cover is None:
        scale *= 0.7  # what is far is seen as well, and its texture is large
        rows, columns = space.size[0], math.ceil(space.reach) + 1
        turn = rng.uniform(-0.4, 0.4)
    else:
        rows, columns = cover.shape
        turn = rng.uniform(0, math.tau)
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[c, -s], [s, c]])
    corners = linear @ (np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * [[columns], [rows]])
    low = np.floor(corners.min(axis=1)) - 1
    width, height = (np.ceil(corners.max(axis=1)) + 2 - low).astype(int).tolist()
    texels = np.c_[linear, -linear @ corner - low]
    gloss = 0.0 if isinstance(surface, Plane) else rng.uniform(-0.9, 0.9)
    return Layer(surface, cover, corner, texels, (height, width), int(rng.integers(2**31)), gloss)
