"""Crops and padding of a raw stereo sample: both views and every map lose or gain the same rows and columns."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from visionattn.data.randomness import sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.stereo.packing import MAPS, check_sizes

_VIEWS = ("left", "right")


@TRANSFORMS.register_module()
class StereoRandomCrop:
    """A window of `size` anywhere in the sample; a smaller sample is padded first, see `padded`.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = checked_size(size)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        results = padded(results, self.size)
        height, width = results["left"].shape[:2]
        draw = np.random.default_rng(sample_seed())
        top = int(draw.integers(height - self.size[0] + 1))
        left = int(draw.integers(width - self.size[1] + 1))
        return cropped(results, top, left, self.size)

    def __repr__(self) -> str:
        return f"StereoRandomCrop(size={self.size})"


@TRANSFORMS.register_module()
class StereoCenterCrop:
    """The middle of the sample; a smaller sample is padded first, see `padded`.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = checked_size(size)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        results = padded(results, self.size)
        height, width = results["left"].shape[:2]
        return cropped(results, (height - self.size[0]) // 2, (width - self.size[1]) // 2, self.size)

    def __repr__(self) -> str:
        return f"StereoCenterCrop(size={self.size})"


@TRANSFORMS.register_module()
class StereoBottomRightCrop:
    """The last rows and columns; of a sample with fewer, what there is. The `gwcnet` protocol's 512x960.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = checked_size(size)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        height, width = results["left"].shape[:2]
        kept = min(height, self.size[0]), min(width, self.size[1])
        return cropped(results, height - kept[0], width - kept[1], kept)

    def __repr__(self) -> str:
        return f"StereoBottomRightCrop(size={self.size})"


@TRANSFORMS.register_module()
class StereoPad:
    """A sample of at least `size`, see `padded`.

    Args:
        size: height and width.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = checked_size(size)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        return padded(results, self.size)

    def __repr__(self) -> str:
        return f"StereoPad(size={self.size})"


def cropped(results: dict[str, Any], top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    """The sample's window; a disparity stays what it is.

    What the right view sees of it becomes less: a pixel whose partner lies left of the window is not `nonoccluded`.
    """
    window = slice(top, top + size[0]), slice(left, left + size[1])
    arrays = {key: results[key][window] for key in (*_VIEWS, *MAPS) if results.get(key) is not None}
    if "nonoccluded" in arrays and "disparity" in arrays:
        arrays["nonoccluded"] = arrays["nonoccluded"] & (np.arange(size[1]) >= arrays["disparity"])
    return results | arrays


def padded(results: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A sample of at least `size`: rows above it and columns right of it, where nothing is valid.

    There the views repeat their border, and disparities are 0.
    """
    height, width = results["left"].shape[:2]
    top, right = max(size[0] - height, 0), max(size[1] - width, 0)
    if not (top or right):
        return results
    arrays = {
        key: cv2.copyMakeBorder(results[key], top, 0, 0, right, cv2.BORDER_REPLICATE).reshape(
            height + top, width + right, *results[key].shape[2:]
        )
        for key in _VIEWS
    }
    for key in MAPS:
        if results.get(key) is not None:
            arrays[key] = np.pad(results[key], ((top, 0), (0, right)))
    return results | arrays


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Raises ValueError unless it is a height and a width."""
    if len(size) != 2 or any(side < 1 or side != int(side) for side in size):
        raise ValueError(f"size={size!r} must be (height, width) in pixels, as (256, 512)")
    return int(size[0]), int(size[1])
