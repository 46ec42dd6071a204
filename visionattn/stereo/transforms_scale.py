"""A raw stereo sample at another size: disparities grow with the width."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from visionattn.data.randomness import sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.stereo.packing import MAPS, check_sizes
from visionattn.stereo.transforms_window import checked_size

_SLOPE = 1.0
"""Neighbouring disparities that differ by more, in pixels, lie on two surfaces."""


@TRANSFORMS.register_module()
class StereoRandomScale:
    """Both views at another size, as RAFT-Stereo and GMStereo draw it: scaled, then stretched in x and in y.

    Factors are powers of two: `octaves=(-0.2, 0.4)` scales by 2^-0.2 to 2^0.4.

    Args:
        octaves: of the factor of both sides.
        stretch_x, stretch_y: octaves of each side's own factor, on top of it.
        stretch_p: how often there is a stretch.
        least: height and width below which nothing shrinks: those of the crop that follows. (A smaller sample grows.)
        p: how often it is applied.
    """

    def __init__(
        self,
        octaves: tuple[float, float] = (-0.2, 0.4),
        stretch_x: tuple[float, float] = (0.0, 0.0),
        stretch_y: tuple[float, float] = (0.0, 0.0),
        stretch_p: float = 1.0,
        least: tuple[int, int] = (1, 1),
        p: float = 1.0,
    ) -> None:
        for name, given in (("octaves", octaves), ("stretch_x", stretch_x), ("stretch_y", stretch_y)):
            if len(given) != 2 or not -4 <= given[0] <= given[1] <= 4:
                raise ValueError(f"{name}={given!r} must be (least, greatest) powers of two, as (-0.2, 0.4)")
        for name, chance in (("stretch_p", stretch_p), ("p", p)):
            check_chance(name, chance)
        self.octaves, self.stretch_x, self.stretch_y = octaves, stretch_x, stretch_y
        self.stretch_p, self.least, self.p = stretch_p, checked_size(least), p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        draw = np.random.default_rng(sample_seed())
        # All are drawn, needed or not: what one option changes, the others' draws stay.
        both, in_x, in_y = (draw.uniform(*octaves) for octaves in (self.octaves, self.stretch_x, self.stretch_y))
        applied, stretched = draw.random() < self.p, draw.random() < self.stretch_p
        if not applied:
            return results
        powers = (both + in_y * stretched, both + in_x * stretched)
        size = results["left"].shape[:2]
        height, width = (
            max(round(side * 2**power), least) for side, power, least in zip(size, powers, self.least, strict=True)
        )
        return resized(results, (height, width))

    def __repr__(self) -> str:
        return f"StereoRandomScale(octaves={self.octaves}, stretch_x={self.stretch_x}, stretch_y={self.stretch_y})"


@TRANSFORMS.register_module()
class StereoResize:
    """Both views and every map at `size`, see `resized`.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = checked_size(size)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        return resized(results, self.size)

    def __repr__(self) -> str:
        return f"StereoResize(size={self.size})"


def resized(results: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The sample at another height and width: views bilinear, masks by the nearest pixel, disparities as
    `resized_disparity` has them and times the ratio of the widths."""
    before = results["left"].shape[:2]
    if before == tuple(size):
        return results
    arrays = {}
    for key in ("left", "right"):
        # Averaging what falls into a pixel, where there is more than one: bilinear alone would alias.
        shrinks = size[0] * size[1] < before[0] * before[1] / 4
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        arrays[key] = cv2.resize(results[key], size[::-1], interpolation=how).reshape(*size, *results[key].shape[2:])
    ratio = np.float32(size[1] / before[1])
    if results.get("disparity") is not None:
        valid = results["valid"] if results.get("valid") is not None else results["disparity"] > 0
        arrays["disparity"] = resized_disparity(results["disparity"], valid, size) * ratio
    if results.get("right_disparity") is not None:
        known = results["right_disparity"] > 0
        arrays["right_disparity"] = resized_disparity(results["right_disparity"], known, size) * ratio
    for key in MAPS:
        if results.get(key) is not None and key not in arrays:
            arrays[key] = nearest(results[key], size)
    return results | arrays


def resized_disparity(disparity: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at another size, in the pixels of the old one; nothing is interpolated across an edge.

    A pixel takes the nearest value. Only within a surface, where the 3x3 pixels around the nearest are all valid and
    within one pixel of each other, is it bilinear: there the nearest value alone would turn a slope into stairs.

    Args:
        disparity: float32 [H, W], pixels.
        valid: bool [H, W].
        size: height and width.
    """
    known = np.where(valid, disparity, 0).astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    smooth = cv2.erode(valid.astype(np.uint8), around) > 0
    smooth &= cv2.dilate(known, around) - cv2.erode(known, around) <= _SLOPE
    bilinear = cv2.resize(known, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(nearest(smooth, size), bilinear, nearest(known, size))


def nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] at another size, by the nearest pixel's centre."""
    # A plain INTER_NEAREST rounds down: half a pixel off, on average.
    values = array.view(np.uint8) if array.dtype == np.bool_ else array
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).view(array.dtype)


def check_chance(name: str, chance: float) -> None:
    """Raises ValueError unless it is a probability."""
    if not 0 <= chance <= 1:
        raise ValueError(f"{name}={chance!r} must be from 0 to 1")
