"""Textures of made-up stereo scenes: patterns of every scale, and coloured tiles made of them.

What stereo needs is another than what segmentation needs of `textures`: detail at all scales at once, as photographs
have it (fractal noise, "dead leaves" of power-law sizes), but also the hard cases, periodic and almost plain surfaces.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.textures import checks, noise, waves

Pattern = NDArray[np.uint8]
Tile = NDArray[np.uint8]


def fractal(rng: np.random.Generator, side: int) -> Pattern:
    """Noise of all scales, from cloudy to grainy."""
    roughness = rng.uniform(0.45, 0.95)
    field = rng.random((4, 4), dtype=np.float32)
    grain = 1.0
    while len(field) < side:
        grain *= roughness
        size = min(2 * len(field), side)
        field = np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC))
        field += np.float32(grain) * rng.random((size, size), dtype=np.float32)
    return _spread(field)


def leaves(rng: np.random.Generator, side: int) -> Pattern:
    """Opaque discs, slabs and shards of power-law sizes, one over the other: the statistics of photographs."""
    canvas = np.full((side, side), 128, np.uint8)
    count = side + 60
    radii = np.sort(1 / rng.uniform(1 / (0.3 * side), 1 / 3, count))[::-1]  # small ones mostly last: nothing hides them
    order = np.argsort(np.arange(count) + rng.uniform(0, 0.5 * count, count))
    tones, kinds = rng.integers(0, 256, count).tolist(), rng.integers(0, 3, count).tolist()
    turns, aspects = rng.uniform(0, math.tau, count), rng.uniform(0.2, 1.0, count)
    along = radii[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    across = aspects[:, None] * along[:, ::-1] * [-1, 1]
    middles = rng.uniform(0, side, (count, 2))
    corners = middles[:, None] + np.stack([along + across, along - across, -along - across, across - along], axis=1)
    corners, middles = np.round(16 * corners).astype(np.int32), np.round(16 * middles).astype(np.int32)
    for k in order.tolist():
        if kinds[k] == 0:
            cv2.circle(canvas, tuple(middles[k].tolist()), round(16 * radii[k]), tones[k], -1, cv2.LINE_AA, 4)
        else:
            cv2.fillConvexPoly(canvas, corners[k, : 4 if kinds[k] == 1 else 3], tones[k], cv2.LINE_AA, 4)
    return canvas


def cells(rng: np.random.Generator, side: int) -> Pattern:
    """Stones: every point has the tone of the nearest of many seeds, darker between two."""
    seeds = np.full((side, side), 255, np.uint8)
    count = int(rng.integers(60, 1200))
    seeds[rng.integers(0, side, count), rng.integers(0, side, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = rng.uniform(0.2, 1.0, int(labels.max()) + 1).astype(np.float32)
    return _spread(tones[labels] - np.float32(rng.uniform(0, 1.2) * math.sqrt(count) / side) * distance)


def marks(rng: np.random.Generator, side: int) -> Pattern:
    """Print: letters and lines of many sizes on cloudy paper."""
    canvas = np.asarray(0.5 * noise(rng, (side, side), side / 4) * 60 + 150).astype(np.uint8)
    for _ in range(6 + side // 14):
        place = (int(rng.integers(-20, side)), int(rng.integers(0, side + 20)))
        tone = int(rng.integers(0, 256))
        size = float(np.exp(rng.uniform(np.log(0.4), np.log(4))))
        text = bytes(rng.integers(33, 127, rng.integers(1, 8)).tolist()).decode()
        cv2.putText(canvas, text, place, int(rng.integers(0, 8)), size, tone, 1 + round(size), cv2.LINE_AA)
        ends = rng.integers(0, side, 4).tolist()
        cv2.line(canvas, (ends[0], ends[1]), (ends[2], ends[3]), tone, int(rng.integers(1, 5)), cv2.LINE_AA)
    return canvas


def repeated(rng: np.random.Generator, side: int) -> Pattern:
    """Stripes, chequers, bricks or dots that repeat exactly, or nearly so, every few pixels."""
    size, angle = (side, side), rng.uniform(0, math.pi)
    period = float(np.exp(rng.uniform(np.log(8), np.log(side / 6))))
    kind = rng.integers(4)
    if kind == 0:
        field = waves(rng, size, period, angle, wobble=float(rng.integers(2)))
        field = np.clip(rng.uniform(1, 4) * field, -1, 1)
    elif kind == 1:
        field = checks(rng, size, period, angle)
    elif kind == 2:
        field = np.minimum(waves(rng, size, period, angle), waves(rng, size, period, angle + math.pi / 2))
        field = np.clip(4 * field, -1, 1)
    else:
        field = waves(rng, size, period, angle) * waves(rng, size, period, angle + math.pi / 2)
        field = np.clip(5 * field - 1.5, -1, 1)
    return _spread(field + np.float32(0.3 * rng.integers(2)) * noise(rng, size, 6))


def grain(rng: np.random.Generator, side: int) -> Pattern:
    """Fine specks on something cloudy."""
    specks = rng.standard_normal((side // 2, side // 2), dtype=np.float32)
    field = np.asarray(cv2.resize(specks, (side, side), interpolation=cv2.INTER_CUBIC))
    return _spread(field + np.float32(rng.uniform(0.2, 2)) * noise(rng, (side, side), side / 6))


_PATTERNS = (fractal, leaves, cells, marks, repeated, grain)
_SHARES = (0.24, 0.26, 0.12, 0.14, 0.14, 0.1)


def draw_patterns(rng: np.random.Generator, number: int, side: int) -> list[Pattern]:
    """Patterns [side, side] of random kinds, the first two with detail of all scales."""
    kinds = [0, 1, *rng.choice(len(_PATTERNS), max(0, number - 2), p=_SHARES).tolist()]
    return [np.asarray(cv2.GaussianBlur(_PATTERNS[kind](rng, side), (3, 3), 0.5), np.uint8) for kind in kinds[:number]]


def draw_tile(rng: np.random.Generator, patterns: Sequence[Pattern], size: tuple[int, int]) -> Tile:
    """A coloured tile [H, W, 3] of these patterns: one, enlarged, in a palette; often patches of another; all under the
    fine detail of a third and a light that changes across the tile. A sixth of all are almost plain."""
    plain = rng.random() < 1 / 6
    contrast = rng.uniform(0.02, 0.2) if plain else rng.uniform(0.5, 1.0)
    tile = cv2.applyColorMap(_crop(rng, patterns, size, rng.uniform(1, 3)), _palette(rng, contrast))
    if not plain and rng.random() < 0.5:
        patches = _crop(rng, patterns, size, rng.uniform(1, 3)) > rng.integers(110, 190)
        other = cv2.applyColorMap(_crop(rng, patterns, size, 1.0), _palette(rng, contrast))
        cv2.copyTo(other, patches.view(np.uint8), tile)
    share = rng.uniform(0.0, 0.08) if plain else rng.uniform(0.1, 0.7)
    fall = cv2.convertScaleAbs(noise(rng, size, max(size) / 2), alpha=rng.uniform(0, 50), beta=128)
    light = cv2.addWeighted(_crop(rng, patterns, size, 1.0), share, fall, 1, -128 * share)
    return np.asarray(cv2.multiply(tile, cv2.merge([light] * 3), scale=1 / 128), np.uint8)


def _crop(rng: np.random.Generator, patterns: Sequence[Pattern], size: tuple[int, int], scale: float) -> Pattern:
    """A random part [H, W] of a random pattern, turned by quarters, `scale` times as large; mirrored where it ends."""
    pattern = np.rot90(patterns[int(rng.integers(len(patterns)))], int(rng.integers(4)))
    height, width = (min(len(pattern), math.ceil(side / scale)) for side in size)
    top, left = rng.integers(0, [len(pattern) - height + 1, len(pattern) - width + 1])
    crop = np.ascontiguousarray(pattern[top : top + height, left : left + width])
    shown = min(size[0], round(height * scale)), min(size[1], round(width * scale))
    if scale > 1:
        crop = np.asarray(cv2.resize(crop, shown[::-1], interpolation=cv2.INTER_LINEAR))
    below, beside = size[0] - crop.shape[0], size[1] - crop.shape[1]
    return np.asarray(cv2.copyMakeBorder(crop, 0, below, 0, beside, cv2.BORDER_REFLECT_101), np.uint8)


def _palette(rng: np.random.Generator, contrast: float) -> NDArray[np.uint8]:
    """A table [256, 1, 3] of a few related colours, dark to bright or mixed, drawn together to a share of contrast."""
    count = int(rng.integers(2, 7))
    hue, spread = rng.random(), 0.05 if rng.random() < 0.7 else 0.5
    saturation = rng.beta(1.2, 2.5)
    tones = rng.uniform(0.05, 1.0, count)
    if rng.random() < 0.4:
        tones.sort()
    hues = (hue + rng.uniform(-spread, spread, count)) % 1
    saturations = saturation * rng.uniform(0.4, 1, count)
    colours = np.array([colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturations, tones, strict=True)])
    middle = colours.mean(axis=0)
    colours = middle + contrast * (colours - middle)
    table = cv2.resize(255 * colours[:, None], (1, 256), interpolation=cv2.INTER_LINEAR)
    return np.round(table).astype(np.uint8)


def _spread(field: NDArray[np.float32]) -> Pattern:
    """The field in 8 bits, from mean - 2.2 to mean + 2.2 deviations."""
    mean, deviation = float(field.mean()), float(field.std()) or 1.0
    return np.clip((field - np.float32(mean)) * np.float32(58 / deviation) + 128, 0, 255).astype(np.uint8)
