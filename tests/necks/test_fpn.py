"""FPN against torchvision's and mmseg's with the same weights, and attention on its levels."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
import torch
from mmseg.models.necks import FPN as MmsegFPN
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from visionattn.attention.build import list_attention
from visionattn.blocks import AttentionPlugin
from visionattn.necks import FPN
from visionattn.registry import MODELS

CHANNELS = (4, 6, 10)
# What ours is told, and torchvision's.
EXTRA: dict[str, Any] = {
    "none": (None, lambda: None),
    "max pool": ("LastLevelMaxPool", LastLevelMaxPool),
    "P6 and P7 of the input": ("LastLevelP6P7", lambda: LastLevelP6P7(10, 8)),
    "P6 and P7 of the output": ({"type": "LastLevelP6P7", "on_output": True}, lambda: LastLevelP6P7(8, 8)),
}


def maps(seed: int = 0) -> list[Tensor]:
    """Odd sizes: no level is twice the next."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((13, 18), (7, 9), (3, 5))
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


def scrambled(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module.eval()


@pytest.mark.parametrize("norm", [None, "BN", "GN"])
@pytest.mark.parametrize("extra", EXTRA)
def test_is_torchvisions(extra: str, norm: str | None) -> None:
    ours_extra, their_extra = EXTRA[extra]
    layer = {None: None, "BN": nn.BatchNorm2d, "GN": partial(nn.GroupNorm, 4)}[norm]
    peer = scrambled(FeaturePyramidNetwork(list(CHANNELS), 8, their_extra(), norm_layer=layer))
    cfg = {"type": "GN", "num_groups": 4} if norm == "GN" else norm
    model = FPN(CHANNELS, 8, extra_levels=ours_extra, norm_cfg=cfg).eval()
    model.load_state_dict(peer.state_dict())
    outputs = model(maps())
    expected = list(peer(OrderedDict((str(i), x) for i, x in enumerate(maps()))).values())
    assert isinstance(outputs, list)
    assert model.out_channels == (8,) * len(expected)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6)
    sum(x.square().mean() for x in outputs).backward()
    sum(x.square().mean() for x in expected).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, peer.get_parameter(name).grad, rtol=1e-5, atol=1e-6)


def test_is_mmsegs() -> None:
    peer = scrambled(MmsegFPN(list(CHANNELS), 8, num_outs=4))
    model = FPN(CHANNELS, 8, extra_levels="LastLevelMaxPool").eval()
    names = {"inner_blocks": "lateral_convs", "layer_blocks": "fpn_convs"}
    state = {}
    for name in model.state_dict():
        block, level, _, parameter = name.split(".")
        state[name] = peer.state_dict()[f"{names[block]}.{level}.conv.{parameter}"]
    model.load_state_dict(state)
    torch.testing.assert_close(model(maps()), list(peer(maps())), rtol=1e-5, atol=1e-5)


def test_starts_as_torchvisions() -> None:
    """Weights uniform within sqrt(3 / fan_in), biases zero."""
    model = FPN((300, 300), 32, extra_levels="LastLevelP6P7")
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        bound = (3 / conv.weight[0].numel()) ** 0.5
        assert 0.98 * bound < conv.weight.abs().max() <= bound
        assert conv.bias.abs().max() == 0


def test_strides() -> None:
    assert FPN(CHANNELS, 8).strides is None
    assert FPN(CHANNELS, 8, in_strides=(8, 16, 32)).strides == (8, 16, 32)
    assert FPN(CHANNELS, 8, in_strides=(8, 16, 32), extra_levels="LastLevelP6P7").strides == (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("attention", "levels"),
    [
        ("EfficientAttention", (0, 1, 2, 3)),
        ({"type": "EfficientAttention", "num_heads": 2}, (0, 1, 2, 3)),
        ({0: "EfficientAttention", 3: "NonLocal"}, (0, 3)),
        ([None, "EfficientAttention", None, None], (1,)),
        ({1: {"type": "visionattn.AttentionPlugin", "attention": "NonLocal", "norm": True}}, (1,)),
    ],
)
def test_attention_stands_on_the_levels_it_is_given(attention: Any, levels: tuple[int, ...]) -> None:
    """Nothing changes at first; then the map of its own level does, and no other: extra levels come before it."""
    torch.manual_seed(0)
    bare = FPN(CHANNELS, 8, extra_levels="LastLevelMaxPool")
    model = FPN(CHANNELS, 8, extra_levels="LastLevelMaxPool", attention=attention)
    model.load_state_dict(bare.state_dict(), strict=False)
    expected = bare(maps())
    assert all(torch.equal(a, b) for a, b in zip(model(maps()), expected, strict=True))
    plugins = {int(level): plugin for level, plugin in model.attention.items()}
    assert tuple(plugins) == levels
    assert all(isinstance(p, AttentionPlugin) and p.in_channels == 8 for p in plugins.values())
    for plugin in plugins.values():
        nn.init.ones_(plugin.gamma)
    for level, (own, before) in enumerate(zip(model(maps()), expected, strict=True)):
        if level in plugins:
            torch.testing.assert_close(own, plugins[level](before))
        assert torch.allclose(own, before) == (level not in plugins)


def test_the_plugins_of_a_config_are_the_published_form_where_it_says_so() -> None:
    published = {"type": "AttentionPlugin", "attention": "EfficientAttention", "zero_init": False}
    model = FPN(CHANNELS, 8, attention={2: published})
    assert model.attention["2"].gamma is None


@pytest.mark.parametrize("name", list_attention())
def test_any_mechanism_stands_on_a_level(name: str) -> None:
    model = FPN(CHANNELS, 8, attention={1: {"type": name, "grid": (7, 9)}})
    sum(x.sum() for x in model(maps())).backward()
    assert model.attention["1"].gamma.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_channels": 8}, TypeError, r"in_channels=8 must list the channels of the maps"),
        ({"in_strides": (8, 16)}, ValueError, r"in_strides=\(8, 16\).*one entry per map"),
        ({"extra_levels": "LastLevelPool"}, KeyError, "known: LastLevelMaxPool, LastLevelP6P7"),
        ({"extra_levels": "AttentionPlugin"}, KeyError, "names no levels of a pyramid"),
        ({"norm_cfg": {"type": "IN"}}, KeyError, "no norm of a neck is called 'IN'; known: BN, SyncBN, GN, LN2d"),
        ({"norm_cfg": {"type": "GN", "num_groups": 3}}, ValueError, "num_groups=3 does not divide the 8 channels"),
        ({"attention": {3: "NonLocal"}}, ValueError, "attention at level 3: the neck returns the levels 0 to 2"),
        ({"attention": ["NonLocal"]}, ValueError, "attention lists 1 levels, the neck returns 3; write None"),
        ({"attention": {1: "NonLocl"}}, KeyError, "attention at level 1: .*did you mean NonLocal"),
        ({"attention": {1: {"type": "NonLocal", "dim": 8}}}, TypeError, "attention at level 1: the host gives dim=8"),
    ],
)
def test_errors_say_what_came_and_what_will_do(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FPN(**{"in_channels": CHANNELS, "out_channels": 8, **options})


def test_other_maps_are_named() -> None:
    model = FPN(CHANNELS, 8)
    with pytest.raises(ValueError, match=r"expects maps of \(4, 6, 10\) channels, finest first; got \(4, 6\)"):
        model(maps()[:2])
    with pytest.raises(ValueError, match=r"got \(10, 6, 4\)"):
        model(maps()[::-1])


def test_a_frozen_norm_wants_no_gradient() -> None:
    model = FPN(CHANNELS, 8, norm_cfg={"type": "BN", "requires_grad": False, "eps": 1e-3})
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert all(not p.requires_grad for norm in norms for p in norm.parameters())
    assert norms[0].eps == 1e-3
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_the_registry_finds_it() -> None:
    model = MODELS.build({"type": "visionattn.FPN", "in_channels": [4, 6, 10], "out_channels": 8})
    assert type(model) is FPN
