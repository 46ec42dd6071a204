"""Attention in mmseg's own backbones: by `plugins=`, and inserted where mmseg has no plug-ins."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmcv.cnn.bricks import build_plugin_layer
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from visionattn.backbones.insertion import insert_attention
from visionattn.blocks import AttentionPlugin
from visionattn.registry import MODELS

PLUGIN = {"type": "visionattn.AttentionPlugin", "attention": {"type": "EfficientAttention"}}
SMALL = {"type": "mmseg.ResNet", "depth": 50, "stem_channels": 8, "base_channels": 8}


@pytest.fixture(params=[None, "mmseg", "visionattn"])
def default_scope(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param is None:
        yield
        return
    with DefaultScope.overwrite_default_scope(request.param):
        yield


def plugins_of(model: nn.Module) -> dict[str, AttentionPlugin]:
    return {name: m for name, m in model.named_modules() if isinstance(m, AttentionPlugin)}


def resnet(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return MMSEG_MODELS.build(SMALL | options)


def maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        return list(model(x))


@pytest.mark.parametrize("kind", ["mmseg.ResNet", "mmseg.ResNetV1c"])
@pytest.mark.usefixtures("default_scope")
def test_enters_by_config_and_changes_nothing_at_first(kind: str) -> None:
    plugin = {"cfg": PLUGIN, "stages": (False, False, True, True), "position": "after_conv3"}
    model = resnet(type=kind, plugins=[plugin])
    assert len(plugins_of(model)) == 6 + 3
    assert set(plugins_of(model)) >= {"layer3.0.attention_plugin", "layer4.2.attention_plugin"}
    assert {p.in_channels for p in plugins_of(model).values()} == {128, 256}

    bare = resnet(type=kind)
    left_over = bare.load_state_dict(model.state_dict(), strict=False)
    assert not left_over.missing_keys
    assert all("attention_plugin" in key for key in left_over.unexpected_keys)
    x = torch.randn(2, 3, 64, 96)
    for ours, theirs in zip(maps(model, x), maps(bare, x), strict=True):
        assert torch.equal(ours, theirs)

    for p in plugins_of(model).values():
        nn.init.ones_(p.gamma)
    changed = [not torch.allclose(a, b) for a, b in zip(maps(model, x), maps(bare, x), strict=True)]
    assert changed == [False, False, True, True]


def test_bare_names_do_in_mmsegs_scope() -> None:
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = resnet(type="ResNetV1c", plugins=[{"cfg": PLUGIN, "position": "after_conv3"}])
    assert len(plugins_of(model)) == 16


def test_a_config_file_is_enough(tmp_path: Any) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "model = dict(type='mmseg.ResNet', depth=50, base_channels=8, stem_channels=8, plugins=[dict("
        "cfg=dict(type='visionattn.AttentionPlugin', attention=dict(type='EfficientAttention', num_heads=2)),"
        "stages=(False, True, False, False), position='after_conv2')])"
    )
    model = MODELS.build(Config.fromfile(file).model)
    assert {p.attn.num_heads for p in plugins_of(model).values()} == {2}
    assert len(plugins_of(model)) == 4


def test_several_in_one_block() -> None:
    """One type at each position and a second one by postfix; each of them takes part and learns."""
    positions = ("after_conv1", "after_conv2", "after_conv3")
    plugins = [
        {"cfg": PLUGIN | {"postfix": f"_{n}"}, "stages": (False, True, False, False), "position": position}
        for n, position in enumerate(positions)
    ]
    model = resnet(plugins=plugins)
    names = [name for name in plugins_of(model) if name.startswith("layer2.0.")]
    assert names == [f"layer2.0.attention_plugin_{n}" for n in range(3)]
    for p in plugins_of(model).values():
        nn.init.ones_(p.gamma)
    model.train()
    sum(y.square().sum() for y in model(torch.randn(2, 3, 64, 96))).backward()
    assert all(p.gamma.grad.count_nonzero() for p in plugins_of(model).values())
    assert all(p.attn.qkv.weight.grad.count_nonzero() for p in plugins_of(model).values())


def test_two_of_one_type_at_one_position_need_a_postfix() -> None:
    plugins = [{"cfg": PLUGIN, "position": "after_conv3"}, {"cfg": PLUGIN | {"postfix": 2}, "position": "after_conv3"}]
    assert {"layer1.0.attention_plugin", "layer1.0.attention_plugin2"} <= set(plugins_of(resnet(plugins=plugins)))
    with pytest.raises(AssertionError, match="duplicate plugin attention_plugin"):
        resnet(plugins=[plugins[0], plugins[0]])


def test_mmseg_keeps_the_last_of_several_at_one_position() -> None:
    """What AttentionPlugin's docstring warns of: `forward_plugin` gives each of them the same map."""
    plugins = [{"cfg": PLUGIN | {"postfix": n}, "position": "after_conv3"} for n in range(2)]
    model = resnet(plugins=plugins)
    x = torch.randn(1, 3, 64, 96)
    before = maps(model, x)
    for name, p in plugins_of(model).items():
        if name.endswith("plugin0"):
            nn.init.ones_(p.gamma)
    assert all(torch.equal(a, b) for a, b in zip(maps(model, x), before, strict=True))


def test_several_at_one_place_work_when_inserted() -> None:
    model = MODELS.build(
        {
            "type": "visionattn.InsertedBackbone",
            "backbone": SMALL,
            "attention": {"layer3.0.bn3": ["EfficientAttention", "EfficientAttention"]},
        }
    )
    x = torch.randn(1, 3, 64, 96)
    for p in plugins_of(model).values():
        before = maps(model, x)
        nn.init.ones_(p.gamma)
        assert not torch.allclose(maps(model, x)[2], before[2])


@pytest.mark.parametrize("host", ["plugins", "inserted"])
def test_survives_the_hosts_own_initialisation(host: str) -> None:
    """init_weights refills every convolution and norm: a zeroed one inside a plug-in would wake up."""
    if host == "plugins":
        model = resnet(plugins=[{"cfg": PLUGIN | {"norm": True}, "position": "after_conv3"}])
    else:
        model = insert_attention(resnet(depth=18), dict.fromkeys(("layer2", "layer3.0"), PLUGIN))
    before = {name: w.clone() for name, w in model.state_dict().items()}
    model.init_weights()
    after = model.state_dict()
    assert not torch.equal(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])
    assert len(plugins_of(model)) > 1
    assert all(p.gamma.count_nonzero() == 0 for p in plugins_of(model).values())
    bare = resnet(depth=50 if host == "plugins" else 18)
    bare.load_state_dict(after, strict=False)
    x = torch.randn(2, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(maps(model, x), maps(bare, x), strict=True))


def test_a_zeroed_convolution_would_not_survive_it() -> None:
    """The trap that gamma avoids, shown on mmseg's own habit."""
    model = resnet(depth=18)
    model.layer1.add_module("attention", nn.Conv2d(8, 8, 1))
    nn.init.zeros_(model.layer1.attention.weight)
    model.init_weights()
    assert model.layer1.attention.weight.count_nonzero() > 0


def test_mmcv_builds_it() -> None:
    name, layer = build_plugin_layer(copy.deepcopy(PLUGIN), in_channels=16, postfix="_x")
    assert name == "attention_plugin_x"
    assert isinstance(layer, AttentionPlugin)
    assert layer.in_channels == 16


def inserted(depth: int = 18, **options: Any) -> dict[str, Any]:
    return {
        "type": "visionattn.InsertedBackbone",
        "backbone": {**SMALL, "type": "mmseg.ResNetV1c", "depth": depth, **options},
        "attention": {"layer3": {"type": "EfficientAttention"}, "layer4.1": "EfficientAttention"},
    }


@pytest.mark.usefixtures("default_scope")
def test_shallow_resnets_take_it_by_config() -> None:
    """mmseg refuses plug-ins in ResNet-18 and 34."""
    with pytest.raises(AssertionError, match="Not implemented yet"):
        resnet(depth=18, plugins=[{"cfg": PLUGIN, "position": "after_conv3"}])
    model = MODELS.build(ConfigDict(inserted()))
    assert type(model).__name__ == "ResNetV1c", "the host itself, not a wrapper"
    assert set(plugins_of(model)) == {"layer3.attention_plugin", "layer4.1.attention_plugin"}
    bare = resnet(type="mmseg.ResNetV1c", depth=18)
    assert [name for name in model.state_dict() if "attention_plugin" not in name] == list(bare.state_dict())
    bare.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(maps(model, x), maps(bare, x), strict=True))


def test_other_input_channels_by_config() -> None:
    model = MODELS.build(inserted(in_channels=5) | {"input_size": (5, 64, 96)})
    assert maps(model, torch.randn(1, 5, 64, 96))[3].shape == (1, 64, 2, 3)
    assert len(plugins_of(MODELS.build(inserted(in_channels=1)))) == 2


def test_the_hosts_frozen_stages_stay_frozen() -> None:
    """mmseg's `train` freezes its stages again and returns nothing; neither may disturb the insertion."""
    model = resnet(depth=18, frozen_stages=1, norm_eval=True)
    model.train()
    before = {name: m.training for name, m in model.named_modules()}
    insert_attention(model, {"layer2": "EfficientAttention"})
    assert {name: m.training for name, m in model.named_modules() if "attention_plugin" not in name} == before
    assert model.layer2.attention_plugin.training
    assert all(p.requires_grad for p in plugins_of(model)["layer2.attention_plugin"].parameters())


@pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore``:UserWarning")
def test_a_segmentor_with_both() -> None:
    """Inside mmseg's EncoderDecoder, through its own init_weights, and back from the loss."""
    head = {
        "type": "mmseg.FCNHead",
        "in_channels": 64,
        "in_index": 3,
        "channels": 8,
        "num_convs": 1,
        "num_classes": 4,
        "loss_decode": {"type": "mmseg.CrossEntropyLoss"},
    }
    model = MODELS.build({"type": "mmseg.EncoderDecoder", "backbone": inserted(), "decode_head": head})
    model.init_weights()
    model.train()
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    found = plugins_of(model)
    assert set(found) == {"backbone.layer3.attention_plugin", "backbone.layer4.1.attention_plugin"}
    assert all(p.gamma.grad.count_nonzero() for p in found.values())
