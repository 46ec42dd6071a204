"""The parts of Faster R-CNN (Ren et al., NeurIPS 2015) and Mask R-CNN (He et al., ICCV 2017) on a pyramid.

They are torchvision's, and so is every default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from visionattn.detection.exact_boxes import Float32Anchors, StridedRoIAlign, in_float32
from visionattn.necks.norm import build_norm

Norm = str | Mapping[str, Any] | None


def region_proposals(
    in_channels: int,
    levels: int,
    *,
    anchor_sizes: Sequence[int | Sequence[int]] = (32, 64, 128, 256, 512),
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    convs: int = 1,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    samples: int = 256,
    positive_fraction: float = 0.5,
    pre_nms: tuple[int, int] = (2000, 1000),
    post_nms: tuple[int, int] = (2000, 1000),
    nms_iou: float = 0.7,
    min_score: float = 0.0,
) -> RegionProposalNetwork:
    """The network that proposes boxes.

    Args:
        in_channels: of every map.
        levels: maps of the pyramid.
        anchor_sizes: in pixels, one or several for each level.
        aspect_ratios: height over width of the anchors.
        convs: 3 x 3 convolutions before the predictions.
        positive_iou, negative_iou: an anchor is trained as an object from here on, as background below.
        samples, positive_fraction: anchors that an image's loss takes, and the most of them that are objects.
        pre_nms, post_nms: proposals of each level before, of the image after suppression: in training, in evaluation.
        nms_iou, min_score: of the suppression.
    Raises:
        ValueError: anchor_sizes does not have an entry for each level.
    """
    anchors = make_anchors(anchor_sizes, aspect_ratios, levels)
    return RegionProposalNetwork(
        anchors,
        in_float32(RPNHead(in_channels, anchors.num_anchors_per_location()[0], convs)),
        positive_iou,
        negative_iou,
        samples,
        positive_fraction,
        dict(zip(("training", "testing"), pre_nms, strict=True)),
        dict(zip(("training", "testing"), post_nms, strict=True)),
        nms_iou,
        min_score,
    )


def box_branch(
    in_channels: int,
    num_classes: int,
    strides: Sequence[int],
    *,
    extent: int = 7,
    sampling_ratio: int = 2,
    convs: Sequence[int] = (),
    width: int = 1024,
    norm_cfg: Norm = None,
    positive_iou: float = 0.5,
    negative_iou: float = 0.5,
    samples: int = 512,
    positive_fraction: float = 0.25,
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    min_score: float = 0.05,
    nms_iou: float = 0.5,
    detections: int = 100,
) -> RoIHeads:
    """What classifies the proposals and moves their sides.

    Args:
        in_channels, strides: of the maps that regions are cut from, finest first.
        num_classes: without the background.
        extent, sampling_ratio: cells of a region along each axis, and samples per cell.
        convs: channels of 3 x 3 convolutions on a region; with them one linear layer follows, without them two.
        width: channels of the linear layers.
        norm_cfg: "BN", "SyncBN", "GN" or "LN2d", behind each of those convolutions.
        positive_iou, negative_iou: a proposal is trained as an object from here on, as background below.
        samples, positive_fraction: proposals that an image's loss takes, and the most of them that are objects.
        box_weights: factors of the coded x, y, width and height.
        min_score, nms_iou, detections: lowest score, overlap and number of what is returned.
    """
    region = (in_channels, extent, extent)
    head = (
        FastRCNNConvFCHead(region, list(convs), [width], norm_layer(norm_cfg))
        if convs
        else TwoMLPHead(in_channels * extent**2, width)
    )
    return RoIHeads(
        StridedRoIAlign(strides, extent, sampling_ratio),
        head,
        in_float32(FastRCNNPredictor(width, num_classes + 1)),
        positive_iou,
        negative_iou,
        samples,
        positive_fraction,
        box_weights,
        min_score,
        nms_iou,
        detections,
    )


def add_mask_branch(
    heads: RoIHeads,
    in_channels: int,
    num_classes: int,
    strides: Sequence[int],
    *,
    extent: int = 14,
    sampling_ratio: int = 2,
    convs: Sequence[int] = (256, 256, 256, 256),
    width: int = 256,
    norm_cfg: Norm = None,
) -> None:
    """What draws a mask of 2 * extent pixels into every box, put into `heads`.

    Args:
        convs: channels of the 3 x 3 convolutions on a region.
        width: channels after the transposed convolution.
        The others: as of `box_branch`.
    """
    heads.mask_roi_pool = StridedRoIAlign(strides, extent, sampling_ratio)
    heads.mask_head = MaskRCNNHeads(in_channels, list(convs), 1, norm_layer(norm_cfg))
    heads.mask_predictor = in_float32(MaskRCNNPredictor(convs[-1], width, num_classes + 1))


def make_anchors(sizes: Sequence[int | Sequence[int]], aspect_ratios: Sequence[float], levels: int) -> Float32Anchors:
    """Anchors of these sizes, one entry a level, and of these ratios at every level.

    Raises:
        ValueError: another number of entries than levels.
    """
    if len(sizes) != levels:
        raise ValueError(f"anchor_sizes={tuple(sizes)} must have one entry for each of the {levels} maps of the neck")
    by_level = tuple((size,) if isinstance(size, int) else tuple(size) for size in sizes)
    return Float32Anchors(by_level, (tuple(aspect_ratios),) * levels)


def norm_layer(cfg: Norm) -> Callable[[int], nn.Module] | None:
    """What torchvision calls with the channels to get a norm."""
    return None if cfg is None else partial(build_norm, cfg)
