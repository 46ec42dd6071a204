"""Layers are found as timm groups them, and every parameter's rate follows from its layer."""

from __future__ import annotations

from typing import Any

import mmseg.models  # noqa: F401
import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from timm.models._manipulate import group_with_matcher
from torch import nn

from visionattn.backbones.timm_backbone import TimmBackbone
from visionattn.engine.layer_decay import LayerDecayOptimWrapperConstructor, layer_depths

VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 64}


def _timm_groups(name: str, **options: Any) -> dict[str, int]:
    """timm's own layer of each parameter, as its fine-tuning recipes use it."""
    model = timm.create_model(name, num_classes=0, **options)
    matcher = model.group_matcher(coarse=False)
    return {
        key: int(number) for key, number in group_with_matcher(model.named_parameters(), matcher, reverse=True).items()
    }


@pytest.mark.parametrize(("name", "options"), [("resnet18", {}), ("vit_tiny_patch16_224", VIT)])
def test_layers_are_timms(name: str, options: dict[str, Any]) -> None:
    depths = layer_depths(TimmBackbone(name, timm_options=options))
    depths = {key.removeprefix("body.").removeprefix("model."): depth for key, depth in depths.items()}
    truth = _timm_groups(name, **options)
    assert len(depths) > 20
    assert depths == {key: truth[key] for key in depths}
    assert len(set(depths.values())) == max(depths.values()) + 1 == {"resnet18": 9}.get(name, 4)


def test_swins_layers_rise_as_timms() -> None:
    options = {"embed_dim": 8, "depths": (1, 2, 3, 1), "num_heads": (1, 1, 2, 2), "img_size": 64, "window_size": 4}
    depths = layer_depths(TimmBackbone("swin_tiny_patch4_window7_224", timm_options=options))
    truth = _timm_groups("swin_tiny_patch4_window7_224", **options)
    pairs = sorted(
        (truth[key.removeprefix("body.").replace("layers_", "layers.")], depth) for key, depth in depths.items()
    )
    # timm has each patch merging as a layer of its own, here it goes with the block before it.
    assert [depth for _, depth in pairs] == sorted(depth for _, depth in pairs)
    assert max(depths.values()) == 7


@pytest.mark.parametrize(
    ("config", "blocks", "first", "merging"),
    [
        ({"type": "ResNet", "depth": 18, "base_channels": 4}, 8, "conv1.weight", ""),
        ({"type": "VisionTransformer", "img_size": 32, "embed_dims": 8, "num_layers": 3, "num_heads": 2}, 3,
         "cls_token", ""),
        ({"type": "SwinTransformer", "embed_dims": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 1, 1, 1)}, 6,
         "patch_embed.projection.weight", "stages.0.downsample.reduction.weight"),
        ({"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": (1, 2, 1, 1), "num_heads": (1, 1, 1, 1)}, 5,
         "layers.0.0.projection.weight", ""),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_mmsegs_backbones(config: dict[str, Any], blocks: int, first: str, merging: str) -> None:
    with DefaultScope.overwrite_default_scope("mmseg"):
        depths = layer_depths(MODELS.build(config))
    assert max(depths.values()) == blocks
    assert depths[first] == 0
    if merging:
        assert depths[merging] == config["depths"][0]


def test_without_repeated_blocks_the_parts_are_layers() -> None:
    backbone = nn.Module()
    backbone.net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 1))
    assert layer_depths(backbone)["net.0.weight"] == 0
    assert layer_depths(backbone)["net.2.weight"] == 2
    assert layer_depths(backbone)["net.3.bias"] == 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = TimmBackbone("vit_tiny_patch16_224", timm_options=VIT)
        self.decode_head = nn.Sequential(nn.Conv2d(16, 4, 1), nn.BatchNorm2d(4))


def _rates(model: nn.Module, **paramwise: Any) -> dict[str, tuple[float, float]]:
    config = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 0.8, "weight_decay": 0.05}}
    wrapper = LayerDecayOptimWrapperConstructor(config, paramwise)(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in names
    }


def test_rates_fall_by_layer() -> None:
    model = Net()
    rates = _rates(model, layer_decay=0.5)
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, depth in layer_depths(model.backbone).items():
        assert rates[f"backbone.{name}"] == (pytest.approx(0.8 * 0.5 ** (4 - depth)), 0.05), name
    assert rates["decode_head.0.weight"] == (0.8, 0.05)
    assert rates["backbone.body.model.pos_embed"][0] == pytest.approx(0.8 / 16)
    assert rates["backbone.body.model.blocks.2.mlp.fc1.weight"][0] == pytest.approx(0.4)


def test_mmengines_options_multiply_with_it() -> None:
    rates = _rates(
        Net(),
        layer_decay=0.5,
        norm_decay_mult=0.0,
        custom_keys={"decode_head.0": {"lr_mult": 10.0}, "pos": {"lr_mult": 2.0}},
    )
    assert rates["decode_head.0.weight"] == (8.0, 0.05)
    assert rates["decode_head.1.weight"] == (0.8, 0.0)
    assert rates["backbone.body.model.blocks.0.norm1.weight"] == (pytest.approx(0.1), 0.0)
    assert rates["backbone.body.model.pos_embed"][0] == pytest.approx(0.1)


def test_frozen_parameters_have_no_rate() -> None:
    model = Net()
    model.backbone.body.model.patch_embed.requires_grad_(False)
    rates = _rates(model, layer_decay=0.9)
    assert not [name for name in rates if "patch_embed" in name]


@pytest.mark.parametrize(
    ("paramwise", "message"),
    [
        ({}, r"needs paramwise_cfg=dict\(layer_decay=\.\.\.\) in \(0, 1\], as 0\.9; got None"),
        ({"layer_decay": 1.5}, "got 1.5"),
        (
            {"layer_decay": 0.9, "backbone": "body"},
            "Net has no 'body', it has backbone, decode_head; set paramwise_cfg",
        ),
    ],
)
def test_what_cannot_be_decayed_is_refused(paramwise: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _rates(Net(), **paramwise)


def test_an_optimizer_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="give it an lr"):
        LayerDecayOptimWrapperConstructor({"optimizer": {"type": "AdamW"}}, {"layer_decay": 0.9})


def test_a_step_moves_early_layers_less() -> None:
    torch.manual_seed(0)
    model = Net()
    config = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.8}}
    wrapper = LayerDecayOptimWrapperConstructor(config, {"layer_decay": 0.1})(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    wrapper.optimizer.step()
    moved = {name: (before[name] - parameter).mean().item() for name, parameter in model.named_parameters()}
    assert moved["decode_head.0.weight"] == pytest.approx(0.8, rel=1e-4)
    assert moved["backbone.body.model.blocks.1.attn.qkv.weight"] == pytest.approx(0.008, rel=1e-4)
