"""From a raw stereo sample, arrays by name, to what a model takes: tensors of both views, and what is known of them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from visionattn.registry import TRANSFORMS

MAPS = ("disparity", "valid", "nonoccluded", "foreground", "right_disparity")
"""What a raw sample may hold beside its views, each [H, W]; float32 pixels or bool."""
_META = ("name", "left_path", "right_path", "disparity_path")


class StereoSample(BaseDataElement):
    """What is known of one stereo pair, and what a model says of it; fields that are not known are absent.

    Attributes:
        disparity: float32 [H, W], pixels of the left image, x_right = x_left - disparity; 0 where not valid.
        valid: bool [H, W], where the disparity is known.
        nonoccluded: bool [H, W], what the right view sees too.
        foreground: bool [H, W], KITTI's moving objects.
        right_disparity: float32 [H, W], pixels of the right image, x_left = x_right + right_disparity.
        predicted: float32 [H, W], a model's disparity.
        name, left_path, right_path, disparity_path: str, where the data set says so (metainfo).
        ori_shape: height and width of the views as they were read (metainfo).
    """

    disparity: Tensor
    valid: Tensor
    nonoccluded: Tensor
    foreground: Tensor
    right_disparity: Tensor
    predicted: Tensor


@TRANSFORMS.register_module()
class PackStereo:
    """dict(inputs=dict(left, right), data_samples=StereoSample): both views uint8 [3, H, W] RGB.

    The last transform of every pipeline. A pair without truth (prediction) gives a sample without `disparity`.

    Raises:
        ValueError: views or maps of different sizes; a disparity that counts and is not finite; names the sample.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        check_sizes(results)
        left, right = as_rgb(results["left"]), as_rgb(results["right"])
        sample = StereoSample(metainfo={key: results[key] for key in _META if results.get(key) is not None})
        sample.set_metainfo({"ori_shape": tuple(results.get("ori_shape", left.shape[:2]))})
        for key in MAPS:
            if results.get(key) is not None:
                floating = key in ("disparity", "right_disparity")
                array = np.ascontiguousarray(results[key], np.float32 if floating else np.bool_)
                setattr(sample, key, torch.from_numpy(array))
        if "disparity" in sample:
            _settle_validity(sample, sample_name(results))
        return {"inputs": {"left": _planes(left), "right": _planes(right)}, "data_samples": sample}

    def __repr__(self) -> str:
        return "PackStereo()"


def as_rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] of an image that is grey ([H, W], [H, W, 1]), RGB, or RGBA, whose alpha is left out.

    Raises:
        ValueError: another shape, or values that are not 8 bit.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in (1, 3, 4):
        raise ValueError(
            f"an image is uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {image.dtype} {list(image.shape)}"
        )
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return image[..., :3]


def check_sizes(results: dict[str, Any]) -> None:
    """Raises ValueError unless both views and all maps of a raw sample have one height and width."""
    sizes = {key: results[key].shape[:2] for key in ("left", "right")}
    sizes |= {key: results[key].shape for key in MAPS if results.get(key) is not None}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{key} {' x '.join(map(str, shape))}" for key, shape in sizes.items())
        raise ValueError(f"{sample_name(results)}: sizes differ: {found}; a pair and its maps have one size")


def sample_name(results: dict[str, Any]) -> str:
    """How an error names the sample."""
    return str(results.get("left_path") or results.get("name") or "this stereo pair")


def _settle_validity(sample: StereoSample, name: str) -> None:
    """What is not valid becomes 0: a NaN there would go through every mask that multiplies."""
    finite = sample.disparity.isfinite()
    if "valid" not in sample:
        sample.valid = finite & (sample.disparity > 0)
    elif not bool(finite[sample.valid].all()):
        raise ValueError(
            f"{name}: the disparity is NaN or infinite at {int((sample.valid & ~finite).sum())} pixels that are "
            "marked valid; mark them as unknown"
        )
    sample.disparity = torch.where(sample.valid, sample.disparity, torch.zeros(()))


def _planes(image: np.ndarray) -> Tensor:
    """uint8 [3, H, W]; OpenCV takes the channels apart several times faster than torch."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)
