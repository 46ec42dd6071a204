"""Detectors without proposals behind a pyramid: RetinaNet (Lin et al., ICCV 2017) and FCOS (Tian et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.fcos import FCOSHead as FCOSLayers
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead as RetinaNetLayers

from visionattn.detection.exact_boxes import in_float32
from visionattn.detection.rcnn_parts import Norm, make_anchors, norm_layer
from visionattn.registry import MODELS


class _Channels(nn.Module):
    """What torchvision asks of a backbone when it builds a detector; ours runs before."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels


@MODELS.register_module()
class RetinaNetHead(nn.Module):
    """torchvision's RetinaNet from the pyramid on; every default is torchvision's.

    Args:
        num_classes: there is no background.
        in_channels, strides: of the neck's maps, given by the detector.
        anchor_sizes: in pixels, for each level; the usual ones are three a third of an octave apart.
        aspect_ratios: height over width of the anchors.
        norm_cfg: "BN", "SyncBN", "GN" or "LN2d", behind the four convolutions of both branches.
        positive_iou, negative_iou: an anchor is trained as an object from here on, as background below.
        min_score, nms_iou, detections, candidates: lowest score, overlap and number of what is returned, and the number
            that each level gives before suppression.
    Raises:
        ValueError: anchor_sizes does not have an entry for each level.
    """

    loss_names = ("loss_classification", "loss_bbox_regression")
    has_masks = False

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int,
        strides: Sequence[int],
        anchor_sizes: Sequence[int | Sequence[int]] | None = None,
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        norm_cfg: Norm = None,
        positive_iou: float = 0.5,
        negative_iou: float = 0.4,
        min_score: float = 0.05,
        nms_iou: float = 0.5,
        detections: int = 300,
        candidates: int = 1000,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        if anchor_sizes is None:
            anchor_sizes = [[int(4 * stride * 2 ** (third / 3)) for third in range(3)] for stride in strides]
        anchors = make_anchors(anchor_sizes, aspect_ratios, len(strides))
        per_cell = anchors.num_anchors_per_location()[0]
        self.detector = RetinaNet(
            _Channels(in_channels),
            num_classes,
            anchor_generator=anchors,
            head=in_float32(RetinaNetLayers(in_channels, per_cell, num_classes, norm_layer(norm_cfg))),
            fg_iou_thresh=positive_iou,
            bg_iou_thresh=negative_iou,
            score_thresh=min_score,
            nms_thresh=nms_iou,
            detections_per_img=detections,
            topk_candidates=candidates,
        )

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the layers say of every anchor: `cls_logits` [B, anchors, K], `bbox_regression` [B, anchors, 4]."""
        raw: dict[str, Tensor] = self.detector.head(list(maps))
        return raw

    def losses(
        self, images: ImageList, maps: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses by name; see `RCNNHead.losses`."""
        anchors = self.detector.anchor_generator(images, list(maps))
        losses = self.detector.compute_loss(list(targets), self(images, maps), anchors)
        return {f"loss_{name}": value for name, value in losses.items()}

    def detections(self, images: ImageList, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Of each image `boxes` in pixels of the input, `labels` from 0, `scores`."""
        return _detections(self.detector, self(images, maps), images, maps)


@MODELS.register_module()
class FCOSHead(nn.Module):
    """torchvision's FCOS from the pyramid on, with its group norms; every default is torchvision's.

    Args:
        num_classes: there is no background.
        in_channels, strides: of the neck's maps, given by the detector; in_channels is a multiple of 32.
        convs: in each branch.
        center_radius: cells around an object's centre that are trained as the object.
        min_score, nms_iou, detections, candidates: as of `RetinaNetHead`.
    Raises:
        ValueError: in_channels is no multiple of 32.
    """

    loss_names = ("loss_classification", "loss_bbox_regression", "loss_bbox_ctrness")
    has_masks = False

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int,
        strides: Sequence[int],
        convs: int = 4,
        center_radius: float = 1.5,
        min_score: float = 0.2,
        nms_iou: float = 0.6,
        detections: int = 100,
        candidates: int = 1000,
    ) -> None:
        super().__init__()
        if in_channels % 32:
            raise ValueError(f"FCOSHead has group norms of 32 groups: {in_channels} channels of the neck do not fit")
        self.num_classes = num_classes
        self.detector = FCOS(
            _Channels(in_channels),
            num_classes,
            anchor_generator=make_anchors(tuple(strides), (1.0,), len(strides)),
            head=in_float32(FCOSLayers(in_channels, 1, num_classes, convs)),
            center_sampling_radius=center_radius,
            score_thresh=min_score,
            nms_thresh=nms_iou,
            detections_per_img=detections,
            topk_candidates=candidates,
        )

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the layers say of every cell: `cls_logits`, `bbox_regression` and `bbox_ctrness` [B, cells, ...]."""
        raw: dict[str, Tensor] = self.detector.head(list(maps))
        return raw

    def losses(
        self, images: ImageList, maps: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses by name; see `RCNNHead.losses`."""
        anchors = self.detector.anchor_generator(images, list(maps))
        cells = [x.shape[2] * x.shape[3] for x in maps]
        losses = self.detector.compute_loss(list(targets), self(images, maps), anchors, cells)
        return {f"loss_{name}": value for name, value in losses.items()}

    def detections(self, images: ImageList, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Of each image `boxes` in pixels of the input, `labels` from 0, `scores`."""
        return _detections(self.detector, self(images, maps), images, maps)


def _detections(
    detector: RetinaNet | FCOS, raw: Mapping[str, Tensor], images: ImageList, maps: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    anchors = detector.anchor_generator(images, list(maps))
    per_cell = detector.anchor_generator.num_anchors_per_location()[0]
    by_level = [x.shape[2] * x.shape[3] * per_cell for x in maps]
    split: dict[str, Any] = {name: list(value.split(by_level, dim=1)) for name, value in raw.items()}
    found: list[dict[str, Tensor]] = detector.postprocess_detections(
        split, [list(some.split(by_level)) for some in anchors], images.image_sizes
    )
    return found
