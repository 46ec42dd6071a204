"""From images of any size to one batch on the model's device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from visionattn.detection.packing import DetectionSample
from visionattn.registry import MODELS


@MODELS.register_module()
class DetectionPreprocessor(BaseDataPreprocessor):
    """Normalises, pads with zeros at the right and below, and stacks; torchvision's arithmetic, without its resizing.

    Each sample gets `img_shape`, its image's height and width before padding.

    Args:
        mean, std: of the channels, in grey levels.
        size_divisor: height and width of the batch are multiples of it.
        non_blocking: copy to the device while the CPU goes on.
    Raises:
        ValueError: in training, a box without area or that is not finite; the message names the image and the box.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        size_divisor: int = 32,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        for name, values in (("mean", mean), ("std", std)):
            unit = torch.tensor([value / 255 for value in values], dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, unit, persistent=False)
        self.size_divisor = size_divisor

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """dict(inputs=float32 [B, 3, H, W], data_samples=[...]) of dict(inputs=[uint8 [3, h, w], ...], ...)."""
        if training:
            for sample in data["data_samples"]:
                check_boxes(sample)
        moved: Any = self.cast_data(dict(data))
        images: list[Tensor] = list(moved["inputs"])
        batch = images[0].new_zeros(
            (len(images), images[0].shape[0], *self._padded(images)), dtype=torch.get_default_dtype()
        )
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image.to(row.dtype) / 255 - self.mean) / self.std
        for sample, image in zip(moved.get("data_samples") or (), images, strict=False):
            sample.set_metainfo({"img_shape": tuple(image.shape[1:])})
        return {**moved, "inputs": batch}

    def _padded(self, images: Sequence[Tensor]) -> list[int]:
        """Height and width of the batch."""
        return [
            -(-max(image.shape[axis] for image in images) // self.size_divisor) * self.size_divisor for axis in (1, 2)
        ]


def check_boxes(sample: DetectionSample) -> None:
    """Raises ValueError for a box that no loss can take."""
    boxes = sample.boxes
    bad = ~(boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
    if bool(bad.any()):
        number = int(bad.nonzero()[0])
        raise ValueError(
            f"{sample_name(sample)}: box {number} is {boxes[number].tolist()} (left, top, right, bottom): no area, or "
            "not finite; `visionattn data check` lists all such boxes"
        )


def sample_name(sample: DetectionSample) -> str:
    """How an error names the image."""
    return str(sample.get("file") or f"image {sample.get('image_id', '?')}")
