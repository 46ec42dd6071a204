"""A random resize and a crop of it, where only the crop is computed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from visionattn.data.category_crop import check_crop, draw_window
from visionattn.data.quiet_albumentations import Targets
from visionattn.data.quiet_albumentations import albumentations as alb
from visionattn.data.resized_window import Window, fitted_size, resized_window


class ScaledCrop(alb.DualTransform):
    """Resizes to fit into `scale` times a random ratio, proportions kept, and crops as `CategoryCrop` does.

    The distribution of mmseg's RandomResize(scale, ratio_range, keep_ratio=True) with RandomCrop(crop_size,
    cat_max_ratio): the image bilinear (a level or two of 256 may differ), the labels by the nearest pixel.

    Args:
        scale: what the long and the short side are fitted into, in either order.
        crop_size: height and width; where the resized image is smaller, the crop is.
        ratio_range: the ratio is uniform in it.
        cat_max_ratio, ignore, p: as of `CategoryCrop`.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self,
        scale: tuple[int, int],
        crop_size: tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        cat_max_ratio: float = 1.0,
        ignore: int = 255,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        check_crop(crop_size, cat_max_ratio)
        if len(scale) != 2 or any(side < 1 for side in scale):
            raise ValueError(f"scale={scale!r} must be the longest long and short side in pixels, as (2048, 512)")
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(f"ratio_range={ratio_range!r} must be (smallest, largest), above 0, as (0.5, 2.0)")
        self.scale, self.crop_size, self.ratio_range = scale, crop_size, ratio_range
        self.cat_max_ratio, self.ignore = cat_max_ratio, ignore

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        ratio = self.py_random.uniform(*self.ratio_range)
        size = fitted_size(params["shape"][:2], (int(self.scale[0] * ratio), int(self.scale[1] * ratio)))
        mask = data.get("mask")
        if mask is not None:
            mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
        window = draw_window(self.py_random, size, self.crop_size, mask, self.cat_max_ratio, self.ignore)
        return {"size": size, "window": window, "resized_mask": mask}

    def apply(self, img: np.ndarray, size: tuple[int, int], window: Window, **params: Any) -> np.ndarray:
        return resized_window(img, size, window)

    def apply_to_mask(self, mask: np.ndarray, window: Window, resized_mask: np.ndarray, **params: Any) -> np.ndarray:
        return resized_mask[window[0] : window[2], window[1] : window[3]]
