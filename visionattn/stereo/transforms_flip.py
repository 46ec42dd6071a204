"""Mirror images of a raw stereo sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionattn.data.randomness import sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.stereo.packing import MAPS, check_sizes, sample_name
from visionattn.stereo.transforms_scale import check_chance

_AGREE = 1.0


@TRANSFORMS.register_module()
class StereoVerticalFlip:
    """Both views and every map upside down; disparities stay what they are.

    Args:
        p: how often it is applied.
    """

    def __init__(self, p: float = 0.5) -> None:
        check_chance("p", p)
        self.p = p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        if np.random.default_rng(sample_seed()).random() >= self.p:
            return results
        return results | {key: results[key][::-1] for key in ("left", "right", *MAPS) if results.get(key) is not None}

    def __repr__(self) -> str:
        return f"StereoVerticalFlip(p={self.p})"


@TRANSFORMS.register_module()
class StereoHorizontalFlip:
    """The pair in a mirror: the right view's mirror image is the left view, so that disparities stay positive.

    The new left view's disparity is the old right view's, which the data set has to give; `nonoccluded` follows from
    both disparities, and `foreground`, known of the old left view alone, is dropped.

    Args:
        p: how often it is applied.
    Raises:
        ValueError: the sample has a disparity but no `right_disparity`.
    """

    def __init__(self, p: float = 0.5) -> None:
        check_chance("p", p)
        self.p = p

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        if results.get("disparity") is not None and results.get("right_disparity") is None:
            # Said of every sample, not only of those that would be flipped.
            raise ValueError(
                f"{sample_name(results)}: StereoHorizontalFlip needs the right view's disparity, and this data set "
                "gives none; set right_disparity=True of the data set, or leave the transform out"
            )
        if np.random.default_rng(sample_seed()).random() >= self.p:
            return results
        return mirrored(results)

    def __repr__(self) -> str:
        return f"StereoHorizontalFlip(p={self.p})"


def mirrored(results: dict[str, Any]) -> dict[str, Any]:
    """The sample in a mirror, the views swapped. A right disparity of 0 counts as unknown."""
    arrays = {"left": results["right"][:, ::-1], "right": results["left"][:, ::-1]}
    if results.get("disparity") is not None:
        disparity, right = results["disparity"], results["right_disparity"]
        known = np.isfinite(right) & (right > 0)
        valid = results["valid"] if results.get("valid") is not None else disparity > 0
        arrays["disparity"] = np.where(known, right, 0).astype(np.float32)[:, ::-1]
        arrays["valid"] = known[:, ::-1]
        arrays["right_disparity"] = np.where(valid, disparity, 0).astype(np.float32)[:, ::-1]
        if results.get("nonoccluded") is not None:
            arrays["nonoccluded"] = seen_by_both(arrays["disparity"], arrays["right_disparity"]) & arrays["valid"]
    return {key: value for key, value in results.items() if key != "foreground"} | arrays


def seen_by_both(disparity: np.ndarray, right_disparity: np.ndarray) -> np.ndarray:
    """bool [H, W]: the left pixels whose partner lies in the right view and has a disparity within one pixel of theirs.

    Args:
        disparity, right_disparity: [H, W], pixels, finite.
    """
    columns = np.arange(disparity.shape[1]) - disparity
    partner = np.rint(columns).astype(np.int64).clip(0, disparity.shape[1] - 1)
    agrees = np.abs(np.take_along_axis(right_disparity, partner, axis=1) - disparity) <= _AGREE
    return agrees & (columns >= 0)
