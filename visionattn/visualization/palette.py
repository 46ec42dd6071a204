"""Colours of classes for data sets that bring none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""R, G, B from 0 to 255."""

# Okabe and Ito, Color Universal Design, 2008, without black.
_OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip

# What protanopes and deuteranopes see of linear RGB: Machado et al., IEEE TVCG 2009, severity 1.
_COLOUR_BLIND = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
)

# Asked for the same difference, colour-blind eyes would leave little but shades of blue.
_DIFFERENCE_COUNTS = np.array((1.0, 2.0, 2.0))[:, None]

_STEPS = (0, 36, 73, 109, 146, 182, 219, 255)
_DARKEST, _LIGHTEST = 25.0, 88.0  # CIE lightness: apart from black text and white paper


@lru_cache
def class_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct colours, the same for every number of classes as far as they go; repeated after 256.

    The first seven are Okabe and Ito's. Each further one is, of a grid of colours, the one farthest (CIELAB) from all
    before it, to normal eyes and, at half the difference, to protanope and deuteranope ones.
    """
    colours = list(_OKABE_ITO)
    grid = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _seen(grid)[0, :, 0]
    grid = grid[(lightness >= _DARKEST) & (lightness <= _LIGHTEST)]
    seen = _seen(grid)
    distance = np.full(len(grid), np.inf)
    for index in range(min(num_classes, 256)):
        if index == len(colours):
            r, g, b = grid[distance.argmax()].tolist()
            colours.append((r, g, b))
        step = seen - _seen(np.array([colours[index]]))
        distance = np.minimum(distance, (np.linalg.norm(step, axis=-1) * _DIFFERENCE_COUNTS).min(axis=0))
    return tuple(colours[index % 256] for index in range(num_classes))


def complete_palette(palette: Sequence[Sequence[int]] | None, num_classes: int) -> NDArray[np.uint8]:
    """[num_classes, 3]: a data set's own colours, then those of `class_palette` for classes that have none."""
    own = np.array([] if palette is None else palette[:num_classes], np.uint8).reshape(-1, 3)
    return np.concatenate([own, np.array(class_palette(num_classes), np.uint8).reshape(-1, 3)[len(own) :]])


def _seen(rgb: NDArray[np.integer]) -> NDArray[np.float32]:
    """CIELAB of colours [N, 3] as normal, protanope and deuteranope eyes see them, [3, N, 3]."""
    linear = (rgb.astype(np.float32) / 255) ** 2.2
    eyes = [linear, *(np.clip(linear @ np.array(m, np.float32).T, 0, 1) for m in _COLOUR_BLIND)]
    return np.stack([cv2.cvtColor(eye[None] ** np.float32(1 / 2.2), cv2.COLOR_RGB2LAB)[0] for eye in eyes])
