"""Images with known objects, and detectors small enough to train in a second."""

from __future__ import annotations

from typing import Any

import torch

from visionattn.detection import DetectionSample, Detector
from visionattn.registry import MODELS

SIZES = ((64, 90), (70, 64))
"""Height and width of the images; their short side is 64, which torchvision's resizing leaves alone."""

RCNN = {"type": "visionattn.RCNNHead", "num_classes": 3, "rpn": {"post_nms": (60, 60)}, "box": {"width": 32}}
HEADS: dict[str, dict[str, Any]] = {
    "faster_rcnn": RCNN,
    "mask_rcnn": {**RCNN, "mask": {"convs": (32,), "width": 32}},
    "retinanet": {"type": "visionattn.RetinaNetHead", "num_classes": 3, "min_score": 0.0095, "detections": 40},
    "fcos": {"type": "visionattn.FCOSHead", "num_classes": 3, "min_score": 0.0695, "detections": 40},
}
SWIN = {"type": "visionattn.SwinTransformer", "embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2),
        "drop_path_rate": 0.0}  # fmt: skip


def detector_config(head: str, backbone: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The config of a detector with a small Swin, or another backbone, and a pyramid of 32 channels."""
    two_stage = HEADS[head]["type"] == "visionattn.RCNNHead"
    backbone = dict(backbone or SWIN)
    first = 1 if backbone["type"] == "visionattn.TimmBackbone" else 0  # timm counts the stem as a stage
    backbone.setdefault("out_indices", tuple(range(first + (0 if two_stage else 1), first + 4)))
    extra = "LastLevelMaxPool" if two_stage else {"type": "LastLevelP6P7", "on_output": head == "fcos"}
    neck = {"type": "visionattn.FPN", "out_channels": 32, "extra_levels": extra}
    return {"type": "visionattn.Detector", "backbone": backbone, "neck": neck, "head": HEADS[head], **changes}


def tiny_detector(head: str, backbone: dict[str, Any] | None = None, **changes: Any) -> Detector:
    """A detector with the same weights every time."""
    torch.manual_seed(0)
    built: Detector = MODELS.build(detector_config(head, backbone, **changes))
    return built


def batch(objects: bool | tuple[bool, ...] = True) -> dict[str, Any]:
    """What a loader gives: an image of each of SIZES; with two objects of classes 0 and 2 where `objects` says so."""
    generator = torch.Generator().manual_seed(3)
    there = (objects,) * len(SIZES) if isinstance(objects, bool) else objects
    inputs = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]
    boxes = torch.tensor([[3.0, 4, 40, 30], [10, 10, 60, 62]])
    samples = []
    for number, (size, with_objects) in enumerate(zip(SIZES, there, strict=True)):
        sample = DetectionSample(metainfo={"image_id": number, "file": f"{number}.png", "ori_shape": size})
        keep = slice(None) if with_objects else slice(0)
        masks = torch.zeros(2, *size, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        sample.boxes, sample.labels = boxes[keep].clone(), torch.tensor([0, 2])[keep]
        sample.masks, sample.crowd = masks[keep], torch.zeros(2, dtype=torch.bool)[keep]
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def losses_of(model: Detector, data: dict[str, Any], seed: int = 1) -> dict[str, torch.Tensor]:
    """The losses in training mode; the seed chooses the sampled anchors and proposals."""
    model.train()
    ready = model.data_preprocessor(data, training=True)
    torch.manual_seed(seed)
    losses: dict[str, torch.Tensor] = model(**ready, mode="loss")
    return losses
