"""From a raw detection sample, arrays by name, to what a model takes: the image, and what is known of its objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from visionattn.registry import TRANSFORMS

_META = ("image_id", "file", "ori_shape", "scale")


class DetectionSample(BaseDataElement):
    """What is known of the objects in one image, and what a model says of them; fields not known are absent.

    Attributes:
        boxes: float32 [N, 4], left, top, right, bottom in pixels of the model's input.
        labels: int64 [N], 0 to classes - 1.
        masks: uint8 [N, H, W] of the model's input, 1 in the object.
        crowd: bool [N]; such a box stands for many objects and is not trained on.
        predicted: a model's `boxes` (pixels of the image as it was read), `labels`, `scores` float32 [N], best first,
            and `masks` uint8 [N, H, W] of the image as it was read where the model has them.
        image_id: of the annotation file (metainfo).
        file: of the image (metainfo).
        ori_shape: height and width of the image as it was read (metainfo).
        scale: vertical and horizontal factor from there to the model's input (metainfo).
        img_shape: height and width of the model's input without padding (metainfo, from the preprocessor).
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowd: Tensor
    predicted: InstanceData


@TRANSFORMS.register_module()
class PackDetection:
    """dict(inputs=uint8 [3, H, W] RGB, data_samples=DetectionSample); the last transform of every pipeline.

    It takes `image` (uint8 [H, W, 3] RGB); `boxes` [N, 4], `labels` [N], `crowd` [N] (none if absent) and `masks`
    [N, H, W] where the truth is known; and `image_id`, `file`, `ori_shape`, `scale`.

    Raises:
        ValueError: arrays that do not belong together; the message names the image.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        image = results["image"]
        name = str(results.get("file") or results.get("image_id", "an image"))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name}: expected a uint8 image [H, W, 3], got {image.dtype} {list(image.shape)}")
        sample = DetectionSample(metainfo={key: results[key] for key in _META if results.get(key) is not None})
        sample.set_metainfo({"ori_shape": tuple(results.get("ori_shape", image.shape[:2]))})
        if results.get("boxes") is not None:
            _set_objects(sample, results, name)
        return {"inputs": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), "data_samples": sample}

    def __repr__(self) -> str:
        return "PackDetection()"


def _set_objects(sample: DetectionSample, results: dict[str, Any], name: str) -> None:
    number = len(results["boxes"])
    sample.boxes = torch.from_numpy(np.array(results["boxes"], np.float32).reshape(number, 4))
    sample.labels = torch.from_numpy(np.array(results["labels"], np.int64).reshape(-1))
    crowd = results.get("crowd")
    sample.crowd = torch.from_numpy(np.zeros(number, np.bool_) if crowd is None else np.array(crowd, np.bool_))
    counts = {"boxes": number, "labels": len(sample.labels), "crowd": len(sample.crowd)}
    if results.get("masks") is not None:
        height, width = results["image"].shape[:2]
        masks = np.array(results["masks"], np.uint8)
        if masks.size == 0:
            masks = masks.reshape(0, height, width)
        if masks.shape[1:] != (height, width):
            raise ValueError(f"{name}: masks {list(masks.shape)} on an image of {height} x {width}")
        sample.masks = torch.from_numpy(masks)
        counts["masks"] = len(masks)
    if len(set(counts.values())) > 1:
        raise ValueError(f"{name}: " + ", ".join(f"{count} {key}" for key, count in counts.items()))
