"""A resize that keeps the proportions, with boxes and masks: one size, or one of several by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from visionattn.data.quiet_albumentations import Targets
from visionattn.data.quiet_albumentations import albumentations as alb
from visionattn.data.resized_window import fitted_size


class FittedResize(alb.DualTransform):
    """Resizes to fit into one of `scales`, each as likely: detection's multi-scale training, or its one test size.

    Args:
        scales: pairs of the longest long and the longest short side, in either order, as [(1333, 640), (1333, 800)].
        p: how often it is applied.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)

    def __init__(self, scales: Sequence[tuple[int, int]] = ((1333, 800),), p: float = 1.0) -> None:
        super().__init__(p=p)
        if not scales or any(isinstance(scale, int) or len(scale) != 2 or min(scale) < 1 for scale in scales):
            raise ValueError(f"scales={scales!r} must be pairs of the longest long and short side, as [(1333, 800)]")
        self.scales = tuple(tuple(scale) for scale in scales)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return {"size": fitted_size(params["shape"][:2], self.py_random.choice(self.scales))}

    def apply(self, img: np.ndarray, size: tuple[int, int], **params: Any) -> np.ndarray:
        return cv2.resize(img, size[::-1], interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: np.ndarray, size: tuple[int, int], **params: Any) -> np.ndarray:
        return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        return bboxes  # in shares of the image
