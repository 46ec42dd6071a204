"""Crops that no single class fills."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from visionattn.data.quiet_albumentations import Targets
from visionattn.data.quiet_albumentations import albumentations as alb
from visionattn.data.resized_window import Window

_TRIES = 10


class CategoryCrop(alb.DualTransform):
    """A random crop; one that a class fills by `cat_max_ratio` or more is drawn again, up to ten times.

    The distribution of mmseg's RandomCrop. Where the image is smaller than the crop, what there is: mmseg's
    data_preprocessor pads to `size`, with labels that are ignored.

    Args:
        crop_size: height and width.
        cat_max_ratio: 1 takes the first crop, as does an image without a mask.
        ignore: the label that is not counted.
        p: how often it is applied.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self, crop_size: tuple[int, int], cat_max_ratio: float = 1.0, ignore: int = 255, p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        check_crop(crop_size, cat_max_ratio)
        self.crop_size, self.cat_max_ratio, self.ignore = crop_size, cat_max_ratio, ignore

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        size = params["shape"][:2]
        return {
            "window": draw_window(
                self.py_random, size, self.crop_size, data.get("mask"), self.cat_max_ratio, self.ignore
            )
        }

    def apply(self, img: np.ndarray, window: Window, **params: Any) -> np.ndarray:
        return img[window[0] : window[2], window[1] : window[3]]

    def apply_to_mask(self, mask: np.ndarray, window: Window, **params: Any) -> np.ndarray:
        return self.apply(mask, window)


def check_crop(crop_size: tuple[int, int], cat_max_ratio: float) -> None:
    """Raises ValueError unless they can be a crop's."""
    if len(crop_size) != 2 or any(side < 1 or side != int(side) for side in crop_size):
        raise ValueError(f"crop_size={crop_size!r} must be (height, width) in pixels")
    if not 0 < cat_max_ratio <= 1:
        raise ValueError(f"cat_max_ratio={cat_max_ratio!r} must be above 0 and at most 1, which allows any crop")


def draw_window(
    generator: random.Random,
    size: tuple[int, int],
    crop_size: tuple[int, int],
    mask: np.ndarray | None,
    cat_max_ratio: float,
    ignore: int,
) -> Window:
    """A random window of at most `crop_size` in an image of `size`; the eleventh is taken whatever is in it."""
    window = _any_window(generator, size, crop_size)
    if mask is None or cat_max_ratio >= 1:
        return window
    for _ in range(_TRIES):
        if is_varied(mask[window[0] : window[2], window[1] : window[3]], cat_max_ratio, ignore):
            break
        window = _any_window(generator, size, crop_size)
    return window


def is_varied(labels: np.ndarray, cat_max_ratio: float, ignore: int) -> bool:
    """Whether there are two classes or more, and none has `cat_max_ratio` or more of the pixels that are not ignored.

    Args:
        labels: [H, W] uint8.
    """
    counted = labels.size - np.count_nonzero(labels == ignore)
    # Counting one class takes a tenth of a histogram, and one that is frequent enough decides: what it leaves to the
    # others is too little for any of them. A sparse sample says which one that may be.
    sample = np.bincount(labels[::16, ::16].ravel(), minlength=256)
    sample[ignore] = 0
    frequent = np.count_nonzero(labels == sample.argmax())
    if sample.any() and counted - frequent < cat_max_ratio * counted:
        return bool(frequent < counted and frequent / counted < cat_max_ratio)
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[ignore] = 0
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio)


def _any_window(generator: random.Random, size: tuple[int, int], crop_size: tuple[int, int]) -> Window:
    top, left = (generator.randint(0, max(side - kept, 0)) for side, kept in zip(size, crop_size, strict=True))
    return top, left, min(top + crop_size[0], size[0]), min(left + crop_size[1], size[1])
