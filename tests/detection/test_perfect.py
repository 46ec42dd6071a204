"""Layers that say the truth: what every detector makes of it must score 1.0 in COCO's metric."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from pycocotools import mask as codec
from tiny_detection import HEADS, SWIN, tiny_detector
from torch import Tensor, nn
from torchvision.ops import box_iou

from visionattn.detection import CocoMetric, DetectionSample

# The original is 8 and 10 times as large: torchvision pastes masks to the pixel, and a pixel must not count for much.
INPUT, ORIGINAL = (64, 96), (512, 960)
BOXES = [
    torch.tensor([[4.0, 6, 40, 38], [50, 8, 92, 60], [10, 44, 30, 62]]),
    torch.tensor([[0.0, 0, 96, 64]]),
    torch.zeros(0, 4),
]
LABELS = [torch.tensor([2, 0, 1]), torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
CATEGORIES = (18, 3, 44)  # ids of the labels 0, 1, 2


def truth() -> dict[str, Any]:
    factors = torch.tensor([ORIGINAL[1] / INPUT[1], ORIGINAL[0] / INPUT[0]]).repeat(2)
    annotations = []
    for image_id, (boxes, labels) in enumerate(zip(BOXES, LABELS, strict=True)):
        for (left, top, right, bottom), label in zip((boxes * factors).tolist(), labels.tolist(), strict=True):
            mask = np.zeros(ORIGINAL, np.uint8, order="F")
            mask[int(top) : int(bottom), int(left) : int(right)] = 1
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": CATEGORIES[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": codec.encode(mask),
                }
            )
    images = [{"id": number, "height": ORIGINAL[0], "width": ORIGINAL[1]} for number in range(len(BOXES))]
    kinds = [{"id": number, "name": f"class {number}"} for number in sorted(CATEGORIES)]
    return {"images": images, "annotations": annotations, "categories": kinds}


class Proposals(nn.Module):
    """In place of the network that proposes: the true boxes of the image that is next."""

    def __init__(self) -> None:
        super().__init__()
        self.image = 0

    def forward(self, images: Any, maps: OrderedDict[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [BOXES[self.image]], {}


class Branch(nn.Module):
    """In place of the layers of both branches: the true class, no move, a full mask."""

    def __init__(self, proposals: Proposals, masks: bool) -> None:
        super().__init__()
        self.proposals, self.masks = [proposals], masks

    def forward(self, regions: Tensor) -> Any:
        labels = LABELS[self.proposals[0].image]
        if self.masks:
            return torch.full((len(labels), 4, 28, 28), 20.0)
        scores = 30.0 * nn.functional.one_hot(labels + 1, 4).float()
        return scores, torch.zeros(len(labels), 16)


class Dense(nn.Module):
    """In place of a dense head: at the anchor nearest to each object its class and the way to its box."""

    def __init__(self, detector: Any, maps: list[Tensor], images: Any) -> None:
        super().__init__()
        (self.anchors,) = detector.anchor_generator(images, maps)
        self.coder, self.image = detector.box_coder, 0
        self.linear = hasattr(detector, "center_sampling_radius")

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        boxes, labels = BOXES[self.image], LABELS[self.image]
        scores, moves = torch.full((1, len(self.anchors), 3), -20.0), torch.zeros(1, len(self.anchors), 4)
        for box, label in zip(boxes, labels, strict=True):
            best = int(box_iou(box[None], self.anchors)[0].argmax())
            scores[0, best, label] = 20.0
            coded = self.coder.encode if self.linear else self.coder.encode_single
            moves[0, best] = (
                coded(self.anchors[best][None], box[None])[0]
                if self.linear
                else coded(box[None], self.anchors[best][None])[0]
            )
        raw = {"cls_logits": scores, "bbox_regression": moves}
        return {**raw, "bbox_ctrness": torch.full((1, len(self.anchors), 1), 20.0)} if self.linear else raw


def say_the_truth(model: Any, head: str) -> Any:
    """Puts the oracle in; what it must be told of the next image is its `image`."""
    if head.endswith("rcnn"):
        oracle: Any = Proposals()
        model.head.rpn = oracle
        model.head.roi_heads.box_predictor = Branch(oracle, masks=False)
        if head == "mask_rcnn":
            model.head.roi_heads.mask_predictor = Branch(oracle, masks=True)
        return oracle
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.zeros(1, 3, *INPUT), [INPUT])
    maps = model.neck(model.backbone(images.tensors))
    model.head.detector.head = Dense(model.head.detector, maps, images)
    return model.head.detector.head


@pytest.mark.parametrize("head", HEADS)
def test_a_perfect_prediction_scores_one(head: str) -> None:
    model = tiny_detector(head, SWIN).eval()
    oracle = say_the_truth(model, head)
    kinds = ("bbox", "segm") if head == "mask_rcnn" else ("bbox",)
    metric = CocoMetric(iou_types=kinds)  # type: ignore[arg-type]
    metric.dataset_meta = {"coco": truth(), "category_ids": CATEGORIES}
    evaluator = Evaluator(metric)
    for image_id in range(len(BOXES)):
        oracle.image = image_id
        sample = DetectionSample(metainfo={"image_id": image_id, "ori_shape": ORIGINAL})
        found = model.test_step({"inputs": [torch.zeros(3, *INPUT, dtype=torch.uint8)], "data_samples": [sample]})
        assert len(found[0].predicted) == len(BOXES[image_id])
        evaluator.process(found)
    figures = evaluator.evaluate(len(BOXES))
    for kind in kinds:
        assert figures[f"coco/{kind}_AP"] == pytest.approx(1.0)
        assert figures[f"coco/{kind}_AR100"] == pytest.approx(1.0)
