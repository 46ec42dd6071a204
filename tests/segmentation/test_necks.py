"""Our backbones and necks under mmseg's heads, by config alone: a step of training, and a prediction at an odd size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from visionattn.registry import MODELS

CLASSES = 3
HEAD = {
    "in_index": [0, 1, 2, 3], "in_channels": [8] * 4, "channels": 8, "num_classes": CLASSES, "align_corners": False,
    "norm_cfg": {"type": "BN"}, "loss_decode": {"type": "visionattn.CrossEntropyLoss"},
}  # fmt: skip
UPER = {"type": "mmseg.UPerHead", "pool_scales": (1, 2), **HEAD}
FPN_HEAD = {"type": "mmseg.FPNHead", "feature_strides": [4, 8, 16, 32], **HEAD}
VIT = {"type": "visionattn.VisionTransformer", "embed_dim": 24, "depth": 3, "num_heads": 3, "image_size": (64, 64)}
VITDET = {
    **VIT, "class_token": False, "out_norms": False,
    "attention": [{"type": "WindowAttention", "window": (3, 3)}, "EfficientAttention"],
}  # fmt: skip
PYRAMID = {"type": "visionattn.SimpleFeaturePyramid", "in_channels": 24, "out_channels": 8}
RESNET = {
    "type": "visionattn.TimmBackbone", "model_name": "resnet18",
    "timm_options": {"channels": (4, 8, 16, 24), "stem_width": 8},
}  # fmt: skip
FPN = {
    "type": "visionattn.FPN", "in_channels": (4, 8, 16, 24), "out_channels": 8,
    "attention": {2: "EfficientAttention", 3: "NonLocal"},
}  # fmt: skip
SEGMENTORS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "ViT, simple feature pyramid, UPerNet": (VIT, PYRAMID, UPER),
    "ViTDet, simple feature pyramid with attention, FPN head": (
        VITDET, {**PYRAMID, "norm_cfg": "BN", "attention": [None, None, "EfficientAttention", None]}, FPN_HEAD,
    ),
    "ResNet of timm, FPN with attention, FPN head": (RESNET, FPN, FPN_HEAD),
    "ResNet of timm, FPN with norms, UPerNet": (RESNET, {**FPN, "norm_cfg": {"type": "GN", "num_groups": 4}}, UPER),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTORS)
def test_trains_a_step_and_predicts_at_an_odd_size(name: str) -> None:
    torch.manual_seed(0)
    backbone, neck, head = copy.deepcopy(SEGMENTORS[name])
    model: Any = MODELS.build(
        {
            "type": "visionattn.EncoderDecoder",
            "data_preprocessor": {
                "type": "mmseg.SegDataPreProcessor",
                "mean": [127.0] * 3,
                "std": [60.0] * 3,
                "size_divisor": 1,
            },
            "backbone": backbone,
            "neck": neck,
            "decode_head": head,
            "test_cfg": {"mode": "whole"},
        }
    )
    model.init_weights()
    model.train()
    batch = {
        "inputs": [torch.randint(256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)],
        "data_samples": [
            SegDataSample(gt_sem_seg=PixelData(data=torch.randint(CLASSES, (1, 64, 96)))) for _ in range(2)
        ],
    }
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    log = model.train_step(batch, OptimWrapper(torch.optim.AdamW(model.parameters(), 0.01)))
    assert all(value.isfinite().all() for value in log.values())
    still = [key for key, p in model.named_parameters() if torch.equal(p, before[key])]
    # What lies behind a zero gets no gradient in the first step: timm's residual branches, a plug-in's attention.
    assert not [key for key in still if not key.startswith("backbone.body.") and ".attn." not in key]
    model.eval()
    with torch.inference_mode():
        (sample,) = model.test_step({"inputs": [torch.randint(256, (3, 67, 101))], "data_samples": None})
    assert sample.pred_sem_seg.shape == (67, 101)
    assert sample.seg_logits.data.isfinite().all()
