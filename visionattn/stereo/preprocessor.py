"""From what a loader collates to what a stereo network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from visionattn.registry import MODELS

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class StereoPreprocessor(BaseDataPreprocessor):
    """Both views on the model's device, as float32 batches with the given mean and deviation taken out.

    Args:
        mean, std: of the channels R, G, B in grey levels (0 to 255); ImageNet's if not given. (0, 0, 0) and (1, 1, 1)
            leave the grey levels as they are.
        non_blocking: copies to the device while the host goes on.
    Raises:
        ValueError: not three numbers each, or a deviation that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD, non_blocking: bool = False) -> None:
        super().__init__(non_blocking=non_blocking)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean={tuple(mean)} and std={tuple(std)}: three numbers each, deviations above 0")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """dict(inputs=dict(left, right): [B, 3, H, W] float32, data_samples: as they came, on the device).

        Args:
            data: inputs=dict(left, right): a batch or a list of [3, H, W] each, 0 to 255; data_samples may be missing.
        Raises:
            ValueError: pairs of different sizes.
        """
        moved: Any = self.cast_data(dict(data))
        views = {name: self._batch(name, moved["inputs"][name]) for name in ("left", "right")}
        if views["left"].shape != views["right"].shape:
            shapes = " and ".join(str(list(view.shape)) for view in views.values())
            raise ValueError(f"left and right views differ in size: {shapes}")
        return {"inputs": views, "data_samples": moved.get("data_samples")}

    def _batch(self, name: str, images: Tensor | Sequence[Tensor]) -> Tensor:
        if not isinstance(images, Tensor):
            sizes = list(dict.fromkeys(tuple(image.shape) for image in images))
            if len(sizes) > 1:
                raise ValueError(
                    f"a batch holds {name} views of different sizes, {list(sizes[0])} and {list(sizes[1])}; crop them "
                    "to one size in the transforms, or evaluate with batch_size=1"
                )
            images = torch.stack(list(images))
        return (images.float() - self.mean) / self.std
