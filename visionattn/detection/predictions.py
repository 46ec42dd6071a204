"""From what a head finds in the model's input to boxes and masks in the image as it was read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes, expand_masks, paste_mask_in_image
from torchvision.models.detection.transform import resize_boxes


def in_original_image(
    found: Mapping[str, Tensor], input_shape: tuple[int, int], ori_shape: tuple[int, int]
) -> InstanceData:
    """`boxes`, `labels`, `scores`, and `masks` uint8 [N, *ori_shape] where the head has them.

    Args:
        found: `boxes` in pixels of the input, `labels`, `scores`, and probabilities `masks` [N, 1, m, m] in the boxes.
        input_shape: height and width of the model's input without padding.
        ori_shape: of the image as it was read.
    """
    boxes = resize_boxes(found["boxes"], list(input_shape), list(ori_shape))
    predicted = InstanceData(boxes=boxes, labels=found["labels"], scores=found["scores"])
    if "masks" in found:
        predicted.masks = paste_masks(found["masks"], boxes, ori_shape)
    return predicted


def paste_masks(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W], 1 where the probability is above one half.

    As torchvision pastes, one mask at a time: all of them in float32 take four times the memory.

    Args:
        masks: probabilities [N, 1, m, m] in the boxes.
        boxes: [N, 4] in pixels of the image.
        shape: H and W.
    """
    grown, factor = expand_masks(masks, padding=1)
    where = expand_boxes(boxes, factor).to(torch.int64)
    pasted = masks.new_zeros((len(masks), *shape), dtype=torch.uint8)
    for row, mask, box in zip(pasted, grown, where, strict=True):
        row.copy_(paste_mask_in_image(mask[0], box, *shape) > 0.5)
    return pasted
