"""Our detectors against torchvision's own, with the same weights on the same images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_detection import HEADS, batch, losses_of, tiny_detector
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from visionattn.detection import Detector
from visionattn.detection.predictions import in_original_image

RESNET = {"type": "visionattn.TimmBackbone", "model_name": "resnet18", "timm_options": {"layers": (1, 1, 1, 1)}}
# In training torchvision draws a size, from the generator that samples the proposals, too.
SAME_SIZE = {"min_size": 64, "max_size": 200, "_skip_resize": True}


def torchvisions(head: str) -> torch.nn.Module:
    """torchvision's model with the options of HEADS[head]; classes count the background in the R-CNNs."""
    two_stage = head.endswith("rcnn")
    levels = range(1, 5) if two_stage else range(2, 5)
    extra: Any = LastLevelMaxPool() if two_stage else LastLevelP6P7(32 if head == "fcos" else 512, 32)
    body = BackboneWithFPN(
        ResNet(BasicBlock, [1, 1, 1, 1]),
        {f"layer{level}": str(number) for number, level in enumerate(levels)},
        [64 * 2 ** (level - 1) for level in levels],
        32,
        extra,
    )
    if head == "retinanet":
        return RetinaNet(body, 3, score_thresh=0.0095, detections_per_img=40, **SAME_SIZE)
    if head == "fcos":
        return FCOS(body, 3, score_thresh=0.0695, detections_per_img=40, **SAME_SIZE)
    options: dict[str, Any] = {
        "rpn_post_nms_top_n_train": 60,
        "rpn_post_nms_top_n_test": 60,
        "box_head": TwoMLPHead(32 * 49, 32),
        "box_predictor": FastRCNNPredictor(32, 4),
    }
    if head == "faster_rcnn":
        return FasterRCNN(body, **options, **SAME_SIZE)
    masks = {"mask_head": MaskRCNNHeads(32, (32,), 1), "mask_predictor": MaskRCNNPredictor(32, 32, 4)}
    return MaskRCNN(body, **options, **masks, **SAME_SIZE)


def ours_by_theirs(name: str, head: str) -> str:
    if name.startswith("backbone.fpn."):
        return name.replace("backbone.fpn.", "neck.")
    if name.startswith("backbone."):
        return name
    return f"head.{name}" if head.endswith("rcnn") else f"head.detector.{name}"


def same_weights(head: str) -> tuple[Detector, torch.nn.Module]:
    torch.manual_seed(5)
    theirs = torchvisions(head)
    ours = tiny_detector(head, RESNET)
    state = {ours_by_theirs(name, head): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state)
    return ours, theirs


def theirs_of(data: dict[str, Any], head: str) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    first = 1 if head.endswith("rcnn") else 0
    targets = [
        {"boxes": sample.boxes, "labels": sample.labels + first, "masks": sample.masks}
        for sample in data["data_samples"]
    ]
    return [image / 255 for image in data["inputs"]], targets


@pytest.mark.parametrize("head", HEADS)
def test_detections_losses_and_gradients_are_theirs(head: str) -> None:
    ours, theirs = same_weights(head)
    images, targets = theirs_of(batch(), head)
    first = 1 if head.endswith("rcnn") else 0
    with torch.no_grad():
        found = theirs.eval()(images)
        samples = ours.eval().test_step(batch())
    for sample, one in zip(samples, found, strict=True):
        assert len(one["boxes"]) >= 5
        torch.testing.assert_close(sample.predicted.boxes, one["boxes"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sample.predicted.scores, one["scores"], rtol=1e-5, atol=1e-5)
        assert torch.equal(sample.predicted.labels, one["labels"] - first)
        assert ("masks" in one) == ("masks" in sample.predicted) == (head == "mask_rcnn")
        if "masks" in one:
            assert torch.equal(sample.predicted.masks, (one["masks"][:, 0] > 0.5).byte())
            assert sample.predicted.masks.any()

    theirs.train()
    torch.manual_seed(1)
    expected = theirs(images, targets)
    got = losses_of(ours, batch())
    assert {name.removeprefix("loss_") for name in got} == {name.removeprefix("loss_") for name in expected}
    for name, value in expected.items():
        torch.testing.assert_close(got[f"loss_{name.removeprefix('loss_')}"], value, rtol=1e-5, atol=1e-5)
        assert value > 0
    sum(got.values()).backward()
    sum(expected.values()).backward()
    parameters = dict(ours.named_parameters())
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(parameters[ours_by_theirs(name, head)].grad, weight.grad, rtol=1e-4, atol=1e-5)


def test_predictions_come_back_to_the_original_size_as_theirs_do() -> None:
    torch.manual_seed(0)
    corners = torch.rand(7, 2) * 40
    found = {
        "boxes": torch.cat([corners, corners + 1 + 20 * torch.rand(7, 2)], 1),
        "labels": torch.arange(7),
        "scores": torch.rand(7),
        "masks": torch.rand(7, 1, 28, 28),
    }
    transform = GeneralizedRCNNTransform(64, 64, [0.0], [1.0]).eval()
    (expected,) = transform.postprocess([dict(found)], [(60, 62)], [(97, 131)])
    got = in_original_image(found, (60, 62), (97, 131))
    assert torch.equal(got.boxes, expected["boxes"])
    assert torch.equal(got.masks, (expected["masks"][:, 0] > 0.5).byte())
    assert got.masks.shape == (7, 97, 131)
    assert got.masks.dtype == torch.uint8


def test_no_detection_has_masks_of_the_image() -> None:
    none = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "scores": torch.zeros(0),
        "masks": torch.zeros(0, 1, 28, 28),
    }
    assert in_original_image(none, (60, 62), (97, 131)).masks.shape == (0, 97, 131)
