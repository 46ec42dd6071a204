"""Brightness, contrast, saturation and hue, as mmseg distorts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from visionattn.data.quiet_albumentations import albumentations as alb

_LEVELS = np.arange(256, dtype=np.uint8)


class PhotometricDistortion(alb.ImageOnlyTransform):
    """Random brightness; contrast here or at the end, by chance; saturation; hue: each every second time.

    The distribution of mmseg's PhotoMetricDistortion, and for the same draws its pixels, bit for bit: on 8-bit images
    every step but the two conversions is a table of 256 entries, and steps that follow one another are one table.

    Args:
        brightness_delta: what is added is uniform in [-brightness_delta, brightness_delta].
        contrast_range, saturation_range: the factor is uniform in it.
        hue_delta: a whole number h (of 180 for the circle) in -hue_delta <= h < hue_delta, the upper end left out as
            in mmseg.
        p: how often it is applied.
    """

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: int = 18,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        for name, given in (("contrast_range", contrast_range), ("saturation_range", saturation_range)):
            if len(given) != 2 or not 0 <= given[0] <= given[1]:
                raise ValueError(f"{name}={given!r} must be (smallest, largest), not below 0, as (0.5, 1.5)")
        if brightness_delta < 0:
            raise ValueError(f"brightness_delta={brightness_delta!r} must not be below 0")
        if not 1 <= hue_delta <= 90:
            raise ValueError(f"hue_delta={hue_delta!r} must be from 1 to 90: the circle of hues has 180 steps")
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_range, self.saturation_range = contrast_range, saturation_range

    def get_params(self) -> dict[str, Any]:
        """None where a step is left out."""
        chance = self.py_random

        def every_second_time(draw: Callable[[], float]) -> float | None:
            return draw() if chance.random() < 0.5 else None

        most = self.brightness_delta
        return {
            "brightness": every_second_time(lambda: chance.uniform(-most, most)),
            "contrast": every_second_time(lambda: chance.uniform(*self.contrast_range)),
            "contrast_first": chance.random() < 0.5,
            "saturation": every_second_time(lambda: chance.uniform(*self.saturation_range)),
            "hue": every_second_time(lambda: chance.randrange(-self.hue_delta, self.hue_delta)),
        }

    def apply(
        self,
        img: np.ndarray,
        brightness: float | None,
        contrast: float | None,
        contrast_first: bool,
        saturation: float | None,
        hue: int | None,
        **params: Any,
    ) -> np.ndarray:
        return distort(img, brightness, contrast, contrast_first, saturation, hue)


def distort(
    image: np.ndarray,
    brightness: float | None,
    contrast: float | None,
    contrast_first: bool,
    saturation: float | None,
    hue: int | None,
) -> np.ndarray:
    """The image, [H, W, 3] RGB uint8, after the steps that are not None, in mmseg's order.

    Args:
        brightness: is added.
        contrast, saturation: factors.
        contrast_first: after brightness; else after hue.
        hue: is added, of 180 for the circle.
    """
    levels = _LEVELS if brightness is None else _scaled(_LEVELS, 1, brightness)
    if contrast is not None and contrast_first:
        levels = _scaled(levels, contrast, 0)
    if levels is not _LEVELS:
        image = cv2.LUT(image, levels)
    # Not one conversion for both: the 8 bits between them round, and the pixels would differ from mmseg's.
    if saturation is not None:
        image = _in_hsv(image, 1, _scaled(_LEVELS, saturation, 0))
    if hue is not None:
        image = _in_hsv(image, 0, ((_LEVELS.astype(int) + hue) % 180).astype(np.uint8))
    if contrast is not None and not contrast_first:
        image = cv2.LUT(image, _scaled(_LEVELS, contrast, 0))
    return image


def _scaled(levels: np.ndarray, factor: float, added: float) -> np.ndarray:
    """In float32 and cut off, not rounded, as in mmseg."""
    return np.clip(levels.astype(np.float32) * factor + added, 0, 255).astype(np.uint8)


def _in_hsv(image: np.ndarray, channel: int, levels: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    changed = cv2.LUT(cv2.extractChannel(hsv, channel), levels)  # half the time of a table for all three
    return cv2.cvtColor(cv2.insertChannel(changed, hsv, channel), cv2.COLOR_HSV2RGB)
