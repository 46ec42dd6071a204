"""mmseg's heads on our backbones, by config alone: a step of training, and a prediction at an odd size."""

from __future__ import annotations

import copy
import importlib
import warnings

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import visionattn.segmentation
from visionattn.registry import MODELS

CHANNELS = [8, 16, 24, 32]
CLASSES = 5
BN = {"type": "BN"}
COMMON = {"num_classes": CLASSES, "norm_cfg": BN, "loss_decode": {"type": "visionattn.CrossEntropyLoss"}}
LAST = {"in_channels": 32, "in_index": 3, "channels": 8, **COMMON}
ALL = {"in_channels": CHANNELS, "in_index": [0, 1, 2, 3], "channels": 8, **COMMON}
THREE = {"in_channels": CHANNELS[:3], "in_index": [0, 1, 2], "input_transform": "multiple_select", "channels": 8}

HEADS = {
    "FCN": {"type": "mmseg.FCNHead", "num_convs": 2, **LAST},
    "AttentionHead": {
        "type": "visionattn.AttentionHead",
        "head": {"type": "mmseg.FCNHead", "num_convs": 2, **LAST},
        "attention": "EfficientAttention",
    },
    "NL": {"type": "mmseg.NLHead", **LAST},
    "PSP": {"type": "mmseg.PSPHead", "pool_scales": (1, 2, 3, 6), **LAST},
    "ASPP": {"type": "mmseg.ASPPHead", "dilations": (1, 2, 3), **LAST},
    "DeepLabV3+": {
        "type": "mmseg.DepthwiseSeparableASPPHead",
        "dilations": (1, 2, 3),
        "c1_in_channels": 8,
        "c1_channels": 4,
        **LAST,
    },
    "UPer": {"type": "mmseg.UPerHead", "pool_scales": (1, 2, 3, 6), **ALL},
    "SegFormer": {"type": "mmseg.SegformerHead", **ALL},
    "LR-ASPP": {
        "type": "visionattn.LRASPPHead",
        "head": {"type": "mmseg.LRASPPHead", "branch_channels": (8, 8), **THREE, **COMMON},
    },
    "OCR": [
        {"type": "mmseg.FCNHead", "num_convs": 1, "concat_input": False, **LAST},
        {"type": "mmseg.OCRHead", "ocr_channels": 8, **LAST},
    ],
    "FPN": {
        "type": "mmseg.FPNHead",
        "feature_strides": [4, 8, 16, 32],
        **ALL,
        "in_channels": [8] * 4,
    },
}
NECKS = {"FPN": {"type": "mmseg.FPN", "in_channels": CHANNELS, "out_channels": 8, "num_outs": 4}}
TIMM = {
    "type": "visionattn.TimmBackbone",
    "model_name": "resnet18",
    "timm_options": {"channels": CHANNELS, "stem_width": 8},
    "attention": [None, None, None, "EfficientAttention"],
}
INSERTED = {
    "type": "visionattn.InsertedBackbone",
    "backbone": {
        "type": "visionattn.TimmBackbone",
        "model_name": "resnet18",
        "timm_options": {"channels": CHANNELS, "stem_width": 8},
    },
    "attention": {"body.layer4": "EfficientAttention"},
}
AUXILIARY = {
    "type": "mmseg.FCNHead", "in_channels": 24, "in_index": 2, "channels": 8, "num_convs": 1, "concat_input": False,
    **COMMON,
}  # fmt: skip


def segmentor(name, backbone=TIMM, auxiliary=AUXILIARY):
    torch.manual_seed(0)
    head = copy.deepcopy(HEADS[name])
    cascade = {"num_stages": len(head)} if isinstance(head, list) else {}
    neck = NECKS.get(name)
    if neck and isinstance(auxiliary, dict):
        auxiliary = {**auxiliary, "in_channels": 8}
    return MODELS.build(
        {
            "type": f"visionattn.{'CascadeEncoderDecoder' if cascade else 'EncoderDecoder'}",
            **cascade,
            "data_preprocessor": {"type": "mmseg.SegDataPreProcessor", "mean": [0.0] * 3, "std": [1.0] * 3},
            "backbone": backbone,
            "neck": neck,
            "decode_head": head,
            "auxiliary_head": auxiliary,
            "test_cfg": {"mode": "whole"},
        }
    )


def step(model, images):
    """The losses of one step of SGD on made-up labels."""
    labels = torch.randint(CLASSES, (len(images), 1, *images.shape[2:]))
    labels[:, :, :5] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    total, log = model.parse_losses(model.loss(images, samples))
    total.backward()
    optimizer.step()
    return log


@pytest.mark.parametrize("backbone", [TIMM, INSERTED], ids=["TimmBackbone", "InsertedBackbone"])
@pytest.mark.parametrize("name", HEADS)
def test_trains_and_predicts_at_an_odd_size(name, backbone):
    model = segmentor(name, backbone)
    model.init_weights()
    model.train()
    log = step(model, torch.randn(2, 3, 64, 96))
    assert all(value.isfinite() for value in log.values())
    assert any(key.startswith("aux") for key in log)
    without = {key for key, p in model.named_parameters() if p.grad is None}
    if name == "LR-ASPP":  # takes the first three maps
        without -= {key for key, _ in model.backbone.body.layer4.named_parameters(prefix="backbone.body.layer4")}
    assert not without
    model.eval()
    with torch.inference_mode():
        (sample,) = model.test_step({"inputs": [torch.randint(256, (3, 67, 101))], "data_samples": None})
    assert sample.pred_sem_seg.shape == (67, 101)
    assert sample.seg_logits.data.shape == (CLASSES, 67, 101)
    assert sample.seg_logits.data.isfinite().all()


def test_several_auxiliary_heads():
    model = segmentor("FCN", auxiliary=[AUXILIARY, {**AUXILIARY, "in_channels": 16, "in_index": 1}])
    log = step(model.train(), torch.randn(2, 3, 64, 96))
    assert {"aux_0.loss_ce", "aux_1.loss_ce", "decode.loss_ce"} <= set(log)


@pytest.mark.parametrize("name", ["PSP", "ASPP", "DeepLabV3+", "UPer"])
def test_global_pooling_needs_two_images_or_a_norm_without_a_batch(name):
    """One image a process: a map of 1 x 1 has no batch statistics. The docs name the ways out; this is one."""
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        step(segmentor(name).train(), torch.randn(1, 3, 64, 96))
    group_norm = {"type": "GN", "num_groups": 4}
    head, before = HEADS[name], copy.deepcopy(HEADS[name])
    try:
        head["norm_cfg"] = group_norm
        log = step(segmentor(name).train(), torch.randn(1, 3, 64, 96))
    finally:
        HEADS[name] = before
    assert log["loss"].isfinite()


def test_lraspp_is_mmsegs_where_mmsegs_works():
    torch.manual_seed(0)
    config = HEADS["LR-ASPP"]["head"]
    theirs, ours = MODELS.build(config).eval(), MODELS.build(HEADS["LR-ASPP"]).eval()
    ours.load_state_dict(theirs.state_dict())
    large = [torch.randn(1, channels, size, size + 9) for channels, size in zip(CHANNELS, (100, 80, 60), strict=False)]
    assert torch.equal(ours(large), theirs(large))
    small = [some[..., :48, :40] for some in large]
    assert ours(small).isfinite().all()
    with pytest.raises(RuntimeError, match="size"):
        theirs(small)
    with pytest.raises(TypeError, match=r"mmseg\.LRASPPHead, got PSPHead"):
        MODELS.build({"type": "visionattn.LRASPPHead", "head": HEADS["PSP"]})


def test_two_classes_are_no_mistake():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(visionattn.segmentation)  # its filter goes before that one
        head = MODELS.build({"type": "mmseg.FCNHead", **LAST, "num_classes": 2})
    assert head.out_channels == 2
