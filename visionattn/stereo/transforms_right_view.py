"""What goes wrong with the right view alone: something is in front of it, or it is not quite rectified.

The truth stays what it is: the left view's disparity.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from visionattn.data.randomness import sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.stereo.packing import check_sizes
from visionattn.stereo.transforms_scale import check_chance


@TRANSFORMS.register_module()
class RightEraser:
    """Rectangles of the right view in its mean colour, as RAFT-Stereo and GMStereo erase: occlusion without a truth.

    Where the left pixel's partner is erased, it is not `nonoccluded` any more.

    Args:
        number: (fewest, most) rectangles; both may be drawn.
        sides: (least, greatest) height and width, pixels; what lies outside the view is cut off.
        p: how often it is applied.
    """

    def __init__(self, number: tuple[int, int] = (1, 2), sides: tuple[int, int] = (50, 99), p: float = 0.5) -> None:
        check_chance("p", p)
        for name, given in (("number", number), ("sides", sides)):
            if len(given) != 2 or not 1 <= given[0] <= given[1]:
                raise ValueError(f"{name}={given!r} must be (least, greatest), from 1 on")
        self.number, self.sides, self.p = number, sides, p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        draw = np.random.default_rng(sample_seed())
        if draw.random() >= self.p:
            return results
        right = results["right"].copy()
        height, width = right.shape[:2]
        colour = np.rint(right.mean(axis=(0, 1))).astype(np.uint8)
        erased = np.zeros((height, width), bool)
        for _ in range(draw.integers(self.number[0], self.number[1] + 1)):
            top, left = draw.integers(height), draw.integers(width)
            down, along = draw.integers(self.sides[0], self.sides[1] + 1, size=2)
            erased[top : top + down, left : left + along] = True
        right[erased] = colour
        return results | {"right": right} | _seen(results, erased)

    def __repr__(self) -> str:
        return f"RightEraser(number={self.number}, sides={self.sides}, p={self.p})"


@TRANSFORMS.register_module()
class RightRowShift:
    """The right view up or down by whole rows, as RAFT-Stereo's y-jitter; before a crop, which hides the border.

    `right_disparity` moves along, and what moves in at the border repeats it.

    Args:
        rows: up to so many, either way; all are equally likely.
        p: how often it is applied.
    """

    def __init__(self, rows: int = 2, p: float = 1.0) -> None:
        check_chance("p", p)
        if rows < 1 or rows != int(rows):
            raise ValueError(f"rows={rows!r} must be a whole number, from 1 on")
        self.rows, self.p = int(rows), p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        draw = np.random.default_rng(sample_seed())
        rows = int(draw.integers(-self.rows, self.rows + 1))
        if draw.random() >= self.p or rows == 0:
            return results
        source = (np.arange(results["right"].shape[0]) - rows).clip(0, results["right"].shape[0] - 1)
        return results | {
            key: results[key][source] for key in ("right", "right_disparity") if results.get(key) is not None
        }

    def __repr__(self) -> str:
        return f"RightRowShift(rows={self.rows}, p={self.p})"


@TRANSFORMS.register_module()
class RightTilt:
    """The right view turned a little about any of its points, and moved up or down by part of a row, as in GMStereo.

    Its `right_disparity` is dropped: it would have to turn too.

    Args:
        degrees: up to so much, either way.
        rows: up to so many, either way.
        p: how often it is applied.
    """

    def __init__(self, degrees: float = 0.1, rows: float = 2.0, p: float = 0.5) -> None:
        check_chance("p", p)
        if not (0 <= degrees <= 5 and rows >= 0):
            raise ValueError(f"degrees={degrees!r} must be from 0 to 5 and rows={rows!r} not below 0")
        self.degrees, self.rows, self.p = degrees, rows, p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        draw = np.random.default_rng(sample_seed())
        if draw.random() >= self.p:
            return results
        right = results["right"]
        height, width = right.shape[:2]
        middle = draw.uniform(0, width), draw.uniform(0, height)
        matrix = cv2.getRotationMatrix2D(middle, draw.uniform(-self.degrees, self.degrees), 1.0)
        matrix[1, 2] += draw.uniform(-self.rows, self.rows)
        turned = cv2.warpAffine(right, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        kept = {key: value for key, value in results.items() if key != "right_disparity"}
        return kept | {"right": turned.reshape(right.shape)}

    def __repr__(self) -> str:
        return f"RightTilt(degrees={self.degrees}, rows={self.rows}, p={self.p})"


def _seen(results: dict[str, Any], erased: np.ndarray) -> dict[str, np.ndarray]:
    """`nonoccluded` without the pixels whose partner in the right view is `erased`, where it is known."""
    if results.get("nonoccluded") is None or results.get("disparity") is None:
        return {}
    columns = np.arange(erased.shape[1]) - results["disparity"]
    partner = np.rint(columns).astype(np.int64).clip(0, erased.shape[1] - 1)
    return {"nonoccluded": results["nonoccluded"] & ~np.take_along_axis(erased, partner, axis=1)}
