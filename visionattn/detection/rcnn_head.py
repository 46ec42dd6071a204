"""Faster R-CNN and Mask R-CNN behind a pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from visionattn.detection.rcnn_parts import add_mask_branch, box_branch, region_proposals
from visionattn.registry import MODELS

_MASKS_COUNTED = 100  # as published costs of Mask R-CNN count


@MODELS.register_module()
class RCNNHead(nn.Module):
    """Proposals, then a class and a box for each; with `mask` also a mask: Faster R-CNN and Mask R-CNN.

    torchvision's `RegionProposalNetwork` and `RoIHeads`, whose parameters keep their names below `rpn` and `roi_heads`.

    Args:
        num_classes: without the background.
        in_channels, strides: of the neck's maps, given by the detector.
        rpn: options of `region_proposals`.
        box: options of `box_branch`.
        mask: options of `add_mask_branch`, dict() for the usual ones; None is Faster R-CNN.
        roi_levels: maps, from the finest, that regions are cut from.
    Raises:
        TypeError, ValueError: an option that does not exist or fit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int,
        strides: Sequence[int],
        rpn: Mapping[str, Any] | None = None,
        box: Mapping[str, Any] | None = None,
        mask: Mapping[str, Any] | None = None,
        roi_levels: int = 4,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.has_masks = mask is not None
        cut = tuple(strides[:roi_levels])
        self.rpn = region_proposals(in_channels, len(strides), **(rpn or {}))
        self.roi_heads = box_branch(in_channels, num_classes, cut, **(box or {}))
        if mask is not None:
            add_mask_branch(self.roi_heads, in_channels, num_classes, cut, **mask)
        names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
        self.loss_names = (*names, "loss_mask") if self.has_masks else names

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> dict[str, Any]:
        """What the layers say, before it becomes boxes: for costs and for export.

        Every proposal goes through the box branch, in training as many as a loss would take; 100 through the masks'.
        """
        named, rpn, heads = _named(maps), self.rpn, self.roi_heads
        objectness, moves = rpn.head(list(maps))
        anchors = rpn.anchor_generator(images, list(maps))
        flat, flat_moves = concat_box_prediction_layers(objectness, moves)
        boxes = rpn.box_coder.decode(flat_moves.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, flat, images.image_sizes, [level[0].numel() for level in objectness])
        if self.training:
            proposals = [some[: heads.fg_bg_sampler.batch_size_per_image] for some in proposals]
        regions = heads.box_roi_pool(named, proposals, images.image_sizes)
        scores, box_moves = heads.box_predictor(heads.box_head(regions))
        raw = {"objectness": objectness, "proposal_moves": moves, "class_scores": scores, "box_moves": box_moves}
        if self.has_masks:
            drawn = [some[:_MASKS_COUNTED] for some in proposals]
            features = heads.mask_head(heads.mask_roi_pool(named, drawn, images.image_sizes))
            raw["mask_scores"] = heads.mask_predictor(features)
        return raw

    def losses(
        self, images: ImageList, maps: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses by name.

        Args:
            images: the padded batch and the images' own sizes.
            maps: the neck's.
            targets: `boxes` [N, 4] in pixels of the input, `labels` [N] from 0, `masks` [N, H, W] for Mask R-CNN.
        """
        named = _named(maps)
        counted = [{**target, "labels": target["labels"] + 1} for target in targets]  # 0 is the background
        proposals, of_proposals = self.rpn(images, named, counted)
        _, of_regions = self.roi_heads(named, proposals, images.image_sizes, counted)
        return {**of_proposals, **of_regions}

    def detections(self, images: ImageList, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Of each image `boxes` in pixels of the input, `labels` from 0, `scores`, and `masks` [N, 1, 28, 28]."""
        named = _named(maps)
        proposals, _ = self.rpn(images, named)
        found, _ = self.roi_heads(named, proposals, images.image_sizes)
        return [{**one, "labels": one["labels"] - 1} for one in found]


def _named(maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict((str(level), x) for level, x in enumerate(maps))
