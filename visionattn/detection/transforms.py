"""albumentations on an image with its boxes and masks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visionattn.data.augmentation import build_augmentation
from visionattn.data.randomness import generators, sample_seed
from visionattn.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DetectionAugment:
    """albumentations on `image`, `boxes` and, where there are any, `masks`; labels and crowd flags go along.

    Boxes are cut off at the new border; an object leaves with too little of its box, or with the last pixel of its
    mask.

    Args:
        transforms: dict(type=<name in albumentations>, **its options), as in `build_augmentation`; ours among them:
            FittedResize, LargeScaleJitter, PhotometricDistortion.
        min_visibility: the share of a box's area that has to stay inside.
        min_side: the least width and height of what stays, pixels.
        boxes_from_masks: boxes of single objects that have a mask are drawn around it anew: closer after a rotation,
            or where an object's widest part was cut off.
    Raises:
        KeyError, TypeError, ValueError: as `build_augmentation`; an image of another form comes out.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any]],
        min_visibility: float = 0.0,
        min_side: float = 1.0,
        boxes_from_masks: bool = False,
    ) -> None:
        from visionattn.data.quiet_albumentations import albumentations as alb

        if not 0 <= min_visibility <= 1 or min_side < 0:
            raise ValueError(
                f"min_visibility={min_visibility!r} must be from 0 to 1, min_side={min_side!r} not below 0"
            )
        boxes = alb.BboxParams(
            "pascal_voc",
            label_fields=["number"],
            min_visibility=min_visibility,
            min_width=min_side,
            min_height=min_side,
            clip=True,
            filter_invalid_bboxes=True,
        )
        with warnings.catch_warnings():  # colours alone are no mistake
            warnings.filterwarnings("ignore", "Got processor for bboxes, but no transform", UserWarning)
            self.compose = build_augmentation(transforms, fill_mask=0, bbox_params=boxes)
        self.boxes_from_masks = boxes_from_masks

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        boxes, masks = results.get("boxes"), results.get("masks")
        number = 0 if boxes is None else len(boxes)
        self.compose.set_random_state(*generators(sample_seed()))
        arrays = {
            "image": results["image"],
            "bboxes": np.zeros((0, 4), np.float32) if boxes is None else boxes,
            "number": np.arange(number),
        }
        if masks is not None and number:  # albumentations takes no empty stack
            arrays["masks"] = masks
        changed = self.compose(**arrays)
        image = changed["image"]
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"{self!r} made an image of {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3]")
        after = results | {"image": image}
        after.pop("scale", None)  # what it was before
        if boxes is None:
            return after
        kept = np.asarray(changed["number"], np.intp).reshape(-1)
        found = np.asarray(changed["bboxes"], np.float32).reshape(-1, 4)
        if masks is not None:
            moved = changed["masks"] if number else np.zeros((0, *image.shape[:2]), np.uint8)
            moved = np.asarray(moved, np.uint8)[kept]
            seen = moved.any(axis=(1, 2))
            kept, found, moved = kept[seen], found[seen], moved[seen]
            if self.boxes_from_masks:
                found = np.where(results["crowd"][kept, None], found, mask_boxes(moved))
            after["masks"] = moved
        fields = {key: results[key][kept] for key in ("labels", "crowd") if results.get(key) is not None}
        return after | fields | {"boxes": found}

    def __repr__(self) -> str:
        return f"DetectionAugment({[type(transform).__name__ for transform in self.compose.transforms]})"


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """float32 [N, 4], left, top, right, bottom, around masks [N, H, W] none of which is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
