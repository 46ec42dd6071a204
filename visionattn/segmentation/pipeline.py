"""Transforms of a sample before mmseg's PackSegInputs: load the image, augment, load the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from visionattn.data.augmentation import build_augmentation
from visionattn.data.images import read_image
from visionattn.data.randomness import generators, sample_seed
from visionattn.registry import TRANSFORMS
from visionattn.segmentation.labels import IGNORE, check_size, label_map_items, label_table, read_mask, to_labels


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """`img` [H, W, 3], RGB, 8 bit, from the file `img_path`; so a data_preprocessor swaps no channels."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results["img"] = read_image(results["img_path"])
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadLabels(BaseTransform):
    """`gt_seg_map` [H, W], uint8: 0..K-1 or 255 = ignored, from the file `seg_map_path`, every number checked.

    After resizing in a pipeline for evaluation, where the prediction is brought back to the image's own size; before
    the augmentation in one for training. An image without a mask (prediction) stays without.

    Args:
        num_classes: K; needed only for datasets that do not give it (those that are not of this package).
    Raises:
        ValueError: a number outside the classes, or a mask of another size than the image; names the file.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        self.num_classes = num_classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results.get("seg_map_path")
        if path is None:
            return results
        num_classes = results.get("num_classes", self.num_classes)
        if num_classes is None:
            raise ValueError(
                "LoadLabels does not know how many classes this dataset has; "
                'set dict(type="visionattn.LoadLabels", num_classes=...)'
            )
        table = label_table(
            num_classes, results.get("reduce_zero_label", False), label_map_items(results.get("label_map"))
        )
        labels = to_labels(read_mask(path), table, path)
        check_size(results["ori_shape"], labels.shape, results["img_path"], path)
        results["gt_seg_map"] = labels
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class Albumentations(BaseTransform):
    """albumentations on the image and, where they are loaded, the labels: labels move by the nearest pixel.

    Args:
        transforms: dict(type=<name in albumentations>, **its options), as in `build_augmentation`; what padding adds
            is ignored by loss and metric unless a transform's own fill_mask says otherwise.
    Raises:
        ValueError: the transforms leave image and labels in different sizes, or do not leave an image.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        self.compose = build_augmentation(transforms, fill_mask=IGNORE)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        self.compose.set_random_state(*generators(sample_seed()))
        arrays = {"image": results["img"]}
        if "gt_seg_map" in results:
            arrays["mask"] = results["gt_seg_map"]
        changed = self.compose(**arrays)
        shape = changed["image"].shape
        if len(shape) != 3 or shape[2] != 3 or ("mask" in changed and changed["mask"].shape != shape[:2]):
            raise ValueError(
                f"{self!r} made an image of shape {list(shape)}"
                + (f" and labels of shape {list(changed['mask'].shape)}" if "mask" in changed else "")
                + "; expected [H, W, 3] and [H, W] (mmseg.PackSegInputs makes the tensors)"
            )
        results["img"], results["img_shape"] = _by_planes(changed["image"]), shape[:2]
        if "mask" in changed:
            results["gt_seg_map"] = changed["mask"]
        return results

    def __repr__(self) -> str:
        return f"Albumentations({[type(transform).__name__ for transform in self.compose.transforms]})"


def _by_planes(image: np.ndarray) -> np.ndarray:
    """The image, [H, W, 3], whose planes lie one behind the other: mmseg.PackSegInputs needs them so, and OpenCV takes
    them apart several times faster than torch."""
    planes = np.empty((3, *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))
    return planes.transpose(1, 2, 0)
