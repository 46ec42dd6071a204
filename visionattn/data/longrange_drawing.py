"""What the pictures of the long-range tasks are drawn with: flat shapes on a dim ground, with labels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.textures import noise

IGNORED = 255
"""The label of the rim of every shape: what belongs there is a matter of taste, and not of these tasks."""

_SUBPIXEL_BITS = 4


class Canvas:
    """A picture in the making.

    Attributes:
        labels: [H, W], 0 where nothing was drawn.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        shade = rng.uniform(0.12, 0.2) * (1 + 0.35 * noise(rng, size, 6.0))
        self._image = np.repeat(shade[..., None], 3, axis=-1).astype(np.float32)
        self.labels = np.zeros(size, np.uint8)

    def line(self, points: NDArray[np.float64], thickness: int, colour: Sequence[float], label: int) -> None:
        """A line through the points [T, 2] (x, y)."""
        window, corner = self._window(points, thickness)
        cover = np.zeros(self.labels[window].shape, np.uint8)
        cv2.polylines(cover, [_fixed(points - corner)], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        self._put(window, cover, colour, label)

    def disc(self, centre: NDArray[np.float64], radius: float, colour: Sequence[float], label: int) -> None:
        """A disc around a point (x, y)."""
        window, corner = self._window(centre[None], radius)
        cover = np.zeros(self.labels[window].shape, np.uint8)
        (x, y), units = _fixed(centre - corner).tolist(), round(radius * 2**_SUBPIXEL_BITS)
        cv2.circle(cover, (x, y), units, 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        self._put(window, cover, colour, label)

    def finished(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image [H, W, 3] (RGB), with the sensor's noise, and labels [H, W]."""
        noisy = self._image + rng.standard_normal(self._image.shape, dtype=np.float32) * np.float32(0.03)
        return np.asarray(np.clip(noisy * 255, 0, 255), np.uint8), self.labels

    def _window(self, points: NDArray[np.float64], reach: float) -> tuple[tuple[slice, slice], NDArray[np.int64]]:
        """The part of the picture that a shape can touch, and its corner (x, y)."""
        low = np.maximum(np.floor(points.min(axis=0) - reach).astype(int) - 2, 0)
        high = np.ceil(points.max(axis=0) + reach).astype(int) + 3
        return (slice(low[1], high[1]), slice(low[0], high[0])), low

    def _put(self, window: tuple[slice, slice], cover: NDArray[np.uint8], colour: Sequence[float], label: int) -> None:
        share = np.divide(cover, 255, dtype=np.float32)[..., None]
        image, labels = self._image[window], self.labels[window]
        image += share * (np.asarray(colour, np.float32) - image)
        body = (cover > 127).astype(np.uint8)
        rim = cv2.dilate(body, np.ones((3, 3), np.uint8)) > body
        labels[rim & (labels == 0)] = IGNORED
        labels[body > 0] = label


def bright(rng: np.random.Generator, hue: float | None) -> tuple[float, float, float]:
    """A colour of this hue (0 to 1; None is grey), a little different each time."""
    if hue is None:
        return (rng.uniform(0.6, 0.8),) * 3
    return colorsys.hsv_to_rgb((hue + rng.uniform(-0.02, 0.02)) % 1, rng.uniform(0.75, 0.95), rng.uniform(0.75, 0.95))


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
