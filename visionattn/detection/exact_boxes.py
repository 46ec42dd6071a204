"""Box arithmetic in float32, whatever autocast does to the layers around it.

torchvision makes anchors in the dtype of the feature maps and decodes boxes in that of the predictions: in bfloat16 a
coordinate of 1,000 pixels is rounded to a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from visionattn.attention.shortcut import takes_shortcuts
from visionattn.ops.roi_align import roi_align_pyramid

Module = TypeVar("Module", bound=nn.Module)


class Float32Anchors(AnchorGenerator):
    """torchvision's anchors; float32 for feature maps of any dtype."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        # Of the maps it asks extent, device and dtype.
        return super().forward(image_list, [x[:1, :1].float() for x in feature_maps])


class StridedRoIAlign(MultiScaleRoIAlign):
    """torchvision's RoIAlign over the first levels of a pyramid, with the levels' strides.

    torchvision's own guesses them from the first batch it sees, for good: from an image of 33 pixels that is padded to
    64, half of what they are. On the CPU `roi_align_pyramid` does the same sums several times as fast.

    Args:
        strides: of the levels used, finest first.
        extent: height and width of what is cut out, in cells.
        sampling_ratio: samples per cell along each axis.
    """

    def __init__(self, strides: Sequence[int], extent: int, sampling_ratio: int) -> None:
        super().__init__([str(level) for level in range(len(strides))], extent, sampling_ratio)
        self.scales = [1 / stride for stride in strides]
        first, last = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
        self.map_levels = initLevelMapper(
            first, last, canonical_scale=self.canonical_scale, canonical_level=self.canonical_level
        )

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """[N, C, *output_size] of the boxes of all images, one image's after the other's."""
        maps = [x[name] for name in self.featmap_names]
        plain = all(takes_shortcuts(level) and level.dtype == maps[0].dtype for level in maps)
        if not plain or self.sampling_ratio < 1 or not sum(map(len, boxes)):
            return super().forward(x, boxes, image_shapes)
        counts = torch.tensor([len(some) for some in boxes])
        images = torch.arange(len(boxes)).repeat_interleave(counts)
        levels = self.map_levels(boxes)
        return roi_align_pyramid(
            maps, torch.cat(boxes), images, levels, self.scales, self.output_size, self.sampling_ratio
        )


def in_float32(module: Module) -> Module:
    """The module, whose floating outputs (tensors, in lists, tuples or dicts) become float32."""
    module.register_forward_hook(_outputs_in_float32)
    return module


def _outputs_in_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    return _in_float32(outputs)


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, dict):
        return {key: _in_float32(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_float32(item) for item in value)
    return value
