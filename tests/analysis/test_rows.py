"""Which modules of a network become rows."""

from __future__ import annotations

import torch
from torch import nn

from visionattn import create_backbone
from visionattn.analysis.rows import places_of
from visionattn.analysis.tracker import Tracker
from visionattn.blocks import TransformerBlock
from visionattn.registry import MODELS


def kinds(model: nn.Module) -> dict[str, tuple[str, int]]:
    return {place.name: (place.kind, place.depth) for place in places_of(model)}


def test_stages_and_blocks_of_a_resnet() -> None:
    rows = kinds(
        create_backbone({"type": "TimmBackbone", "model_name": "resnet18", "attention": {3: "EfficientAttention"}})
    )
    assert rows[""] == ("model", 0)
    assert rows["body.conv1"] == ("layer", 1)
    assert rows["body.layer2"] == ("stage", 1)
    assert rows["body.layer2.1"] == ("block", 2)
    assert rows["body.layer3.attention_plugin"] == ("block", 2)
    assert not any(name.startswith("body.layer2.1.") for name in rows)


def test_blocks_of_a_vit_stand_below_the_model() -> None:
    vit = create_backbone(
        {"type": "TimmBackbone", "model_name": "vit_tiny_patch16_224", "timm_options": {"depth": 2}, "out_indices": [1]}
    )
    assert kinds(vit)["body.model.blocks.1"][0] == "block"


def test_stages_of_a_list_of_stages() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(TransformerBlock(8, "SoftmaxAttention") for _ in range(2))
            self.downsample = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))

    model = nn.Module()
    model.layers = nn.ModuleList(Stage() for _ in range(2))
    model.norm = nn.LayerNorm(8)
    assert kinds(model) == {
        "": ("model", 0),
        "layers.0": ("stage", 1),
        "layers.0.blocks.0": ("block", 2),
        "layers.0.blocks.1": ("block", 2),
        "layers.0.downsample": ("block", 2),
        "layers.1": ("stage", 1),
        "layers.1.blocks.0": ("block", 2),
        "layers.1.blocks.1": ("block", 2),
        "layers.1.downsample": ("block", 2),
        "norm": ("layer", 1),
    }


def test_a_segmentor() -> None:
    import visionattn.segmentation  # noqa: F401

    rows = kinds(
        MODELS.build(
            {
                "type": "mmseg.EncoderDecoder",
                "backbone": {"type": "mmseg.SwinTransformer", "embed_dims": 8, "depths": (2, 2), "num_heads": (1, 2),
                             "strides": (4, 2), "out_indices": (0, 1)},
                "decode_head": {"type": "mmseg.FCNHead", "in_channels": 16, "channels": 4, "num_convs": 2,
                                "num_classes": 3, "in_index": 1, "norm_cfg": {"type": "BN"}},
                "test_cfg": {"mode": "whole"},
            }
        )
    )  # fmt: skip
    assert rows["backbone"] == ("stage", 1)
    assert rows["backbone.stages.1"] == ("stage", 2)
    assert rows["backbone.stages.1.blocks.0"] == ("block", 3)  # its MLP is a chain of layers in a list
    assert rows["decode_head"] == ("stage", 1)
    assert rows["decode_head.convs.1"] == ("block", 2)


def test_the_tracker_sees_calls_of_forward_and_leaves_no_trace() -> None:
    inner, outer = nn.Linear(3, 3), nn.Module()
    outer.inner = inner
    seen: list[str] = []
    tracker = Tracker(lambda name: seen.append(f"+{name}"), lambda name: seen.append(f"-{name}"))
    with tracker.watching([("inner", inner)]):
        inner(torch.zeros(1, 3))
        inner.forward(torch.zeros(1, 3))  # as mmseg calls its heads
        inner.register_forward_hook(lambda *_: seen.append(tracker.innermost()))
        inner(torch.zeros(1, 3))
        assert tracker.innermost() == ""
        assert not tracker.is_busy()
    assert seen == ["+inner", "-inner", "+inner", "-inner", "+inner", "-inner", ""]
    assert "forward" not in vars(inner)
    assert not inner._forward_pre_hooks
    assert len(inner._forward_hooks) == 1
