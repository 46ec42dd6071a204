"""Made-up stereo scenes as two views with their disparities and what either hides from the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.stereo_scenes import Layer, StereoScene, compose_stereo
from visionattn.data.stereo_surfaces import Map, Plane
from visionattn.data.stereo_textures import Tile, draw_tile

Image = NDArray[np.uint8]

_MIRROR = cv2.BORDER_REFLECT_101
_STRIDE = 8  # between the points that tell where a layer may be seen

_SAME = 0.01
"""Surfaces that are less than this many pixels of disparity apart do not hide each other: they touch."""


class StereoViews(NamedTuple):
    """A drawn scene.

    Attributes:
        left, right: uint8 [H, W, 3], RGB, without noise or blur.
        disparity, right_disparity: float32 [H, W], pixels: x_right = x_left - d in either view's own pixels.
        hidden, right_hidden: bool [H, W], what the other view does not see, because something is in front of it or
            because it lies outside the other picture.
    """

    left: Image
    right: Image
    disparity: Map
    right_disparity: Map
    hidden: NDArray[np.bool_]
    right_hidden: NDArray[np.bool_]


class _View:
    """One view while it is painted: the largest disparity so far, the number of the layer that has it, and the windows
    that each layer may be seen in."""

    def __init__(self, size: tuple[int, int], right: bool) -> None:
        self.size = size
        self.right = right
        self.disparity = np.full(size, -np.inf, np.float32)
        self.owner = np.full(size, -1, np.int16)
        self.windows: list[tuple[slice, slice]] = []

    def seen(self) -> list[int]:
        """The numbers of the layers of which anything is seen."""
        return np.flatnonzero(np.bincount(self.owner.ravel())).tolist()

    def look(self, layer: Layer, x: Map, y: Map) -> tuple[Map, NDArray[np.bool_]]:
        """The layer's disparity at (x, y) of this view, and whether there is anything of it; x and y broadcast."""
        if not self.right:
            return layer.surface.disparity(x, y), layer.covers(x, y)
        in_left = layer.surface.left_of(x, y)
        return in_left - x, layer.covers(in_left, y)

    def paint(self, layer: Layer) -> None:
        """Paints the next layer."""
        rows, columns = window = self._window(layer)
        x, y = _grid(window)
        if self.right or layer.cover is None:
            disparity, covered = self.look(layer, x, y)
        else:  # whole pixels of the cover
            part = layer.cover[rows.start - layer.corner[1] :, columns.start - layer.corner[0] :]
            disparity = layer.surface.disparity(x, y)
            covered = part[: disparity.shape[0], : disparity.shape[1]] >= 128
        seen = (disparity > self.disparity[window]) & covered
        if seen.size:
            cv2.copyTo(disparity, seen.view(np.uint8), self.disparity[window])
            cv2.copyTo(np.full(seen.shape, len(self.windows), np.int16), seen.view(np.uint8), self.owner[window])
        self.windows.append(window)

    def _window(self, layer: Layer) -> tuple[slice, slice]:
        """The rows and columns that the layer may be seen in."""
        height, width = self.size
        if layer.cover is None:
            return slice(0, height), slice(0, width)
        (x, y), (rows, columns) = layer.corner, layer.cover.shape
        low, high = float(x), float(x + columns - 1)
        if self.right:
            grid = np.arange(0, columns + _STRIDE, _STRIDE), np.arange(0, rows + _STRIDE, _STRIDE)[:, None]
            disparity = layer.surface.disparity((grid[0] + x).astype(np.float32), (grid[1] + y).astype(np.float32))
            low, high = low - float(disparity.max()) - _STRIDE, high - float(disparity.min()) + _STRIDE
        return (
            slice(min(max(y, 0), height), max(min(y + rows, height), 0)),
            slice(min(max(int(low), 0), width), max(min(int(high) + 1, width), 0)),
        )


def render_stereo(
    rng: np.random.Generator, size: tuple[int, int], max_disparity: float, crowd: float = 1.0
) -> StereoViews:
    """Both views of a random scene: H, W in pixels; disparities from 0 to below `max_disparity` (`compose_stereo`)."""
    return draw_stereo(compose_stereo(rng, size, max_disparity, crowd))


def draw_stereo(scene: StereoScene) -> StereoViews:
    """Both views of a scene.

    The right view is found by inverse mapping, no pixel is interpolated from the left one; whether a point is hidden is
    asked of the surfaces themselves, at its exact place in the other view.
    """
    left, right = _View(scene.size, right=False), _View(scene.size, right=True)
    for layer in scene.layers:
        left.paint(layer)
        right.paint(layer)
    tiles = {}
    for number in {*left.seen(), *right.seen()}:
        layer = scene.layers[number]
        tiles[number] = draw_tile(np.random.default_rng(layer.texture), scene.patterns, layer.tile)
    return StereoViews(
        left=_shade(scene, left, tiles),
        right=_shade(scene, right, tiles),
        disparity=left.disparity,
        right_disparity=right.disparity,
        hidden=_hidden(scene, left, right),
        right_hidden=_hidden(scene, right, left),
    )


def _hidden(scene: StereoScene, view: _View, other: _View) -> NDArray[np.bool_]:
    """The pixels of a view that lie outside the other picture or behind another layer there.

    What falls between two pixels of the other view that show one layer hides nothing and leaves no hole. Where they
    show two, the layers are asked what is there.
    """
    height, width = scene.size
    x, y = _grid((slice(0, height), slice(0, width)))
    place = x + view.disparity if view.right else x - view.disparity
    hidden = (place < 0) | (place > width - 1)
    before = np.clip(place, 0, width - 2).astype(np.int32) + y.astype(np.int32) * width
    owner = other.owner.ravel().take(before)
    border = owner != other.owner.ravel().take(before + 1)
    behind = other.disparity.ravel().take(before) > view.disparity + _SAME
    hidden |= behind & ~border & (owner != view.owner)
    at = np.flatnonzero(border & ~hidden)
    row = (at // width).astype(np.float32)
    place, disparity, owner = place.ravel()[at], view.disparity.ravel()[at], view.owner.ravel()[at]
    for number, (layer, (rows, columns)) in enumerate(zip(scene.layers, other.windows, strict=True)):
        begin, end = np.searchsorted(row, [rows.start, rows.stop]).tolist()
        asked = (
            (place[begin:end] > columns.start - 1) & (place[begin:end] < columns.stop) & (owner[begin:end] != number)
        )
        which = begin + np.flatnonzero(asked)
        nearest, covered = other.look(layer, place[which], row[which])
        hidden.ravel()[at[which]] |= covered & (nearest > disparity[which] + _SAME)
    return hidden


def _shade(scene: StereoScene, view: _View, tiles: Mapping[int, Tile]) -> Image:
    """The view's picture, with the edges between layers softened."""
    image = np.zeros((*scene.size, 3), np.uint8)
    for number, tile in tiles.items():
        layer, (rows, columns) = scene.layers[number], view.windows[number]
        mine = view.owner[rows, columns] == number
        down, across = mine.any(axis=1).nonzero()[0], mine.any(axis=0).nonzero()[0]
        if not len(down):
            continue  # the other view alone sees it
        mine = np.ascontiguousarray(mine[down[0] : down[-1] + 1, across[0] : across[-1] + 1])
        rows = slice(rows.start + int(down[0]), rows.start + int(down[-1]) + 1)
        columns = slice(columns.start + int(across[0]), columns.start + int(across[-1]) + 1)
        texture = _texture(layer, tile, view, (rows, columns))
        cv2.copyTo(texture, mine.view(np.uint8), image[rows, columns])
    return _soften(image, view.owner)


def _texture(layer: Layer, tile: Tile, view: _View, window: tuple[slice, slice]) -> Image:
    """The layer's colours in a window of the view, right where it is seen."""
    rows, columns = window
    flat = layer.surface if isinstance(layer.surface, Plane) else None
    if flat or not view.right:
        texels = layer.texels
        if flat and view.right:
            texels = texels @ [flat.left_of_terms(), [0, 1, 0], [0, 0, 1]]
        texels = texels @ [[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]]
        size = columns.stop - columns.start, rows.stop - rows.start
        texture = cv2.warpAffine(tile, texels, size, None, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, _MIRROR)
        if flat:
            return np.asarray(texture, np.uint8)
    x, y = _grid(window)
    if view.right:
        x = x + view.disparity[window]
        (a, b, c), (d, e, f) = layer.texels.astype(np.float32)
        texture = cv2.remap(tile, a * x + (b * y + c), d * x + (e * y + f), cv2.INTER_LINEAR, None, _MIRROR)
    light = 1 + np.float32(layer.gloss) * layer.surface.slope(x, y)
    return np.asarray(cv2.convertScaleAbs(texture * light[..., None]), np.uint8)


def _soften(image: Image, owner: NDArray[np.int16]) -> Image:
    """The image whose pixels beside another layer are mixed with their neighbours, as a lens and a sensor do."""
    edges = np.zeros(owner.shape, np.uint8)
    differs = owner[:, 1:] != owner[:, :-1]
    edges[:, 1:] |= differs
    edges[:, :-1] |= differs
    differs = owner[1:] != owner[:-1]
    edges[1:] |= differs
    edges[:-1] |= differs
    return np.asarray(cv2.copyTo(cv2.GaussianBlur(image, (3, 3), 0.6), edges, image.copy()))


def _grid(window: tuple[slice, slice]) -> tuple[Map, Map]:
    """Columns [1, w] and rows [h, 1] of a window."""
    rows, columns = window
    return (
        np.arange(columns.start, columns.stop, dtype=np.float32)[None],
        np.arange(rows.start, rows.stop, dtype=np.float32)[:, None],
    )
