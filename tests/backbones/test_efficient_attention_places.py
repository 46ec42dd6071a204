"""The three sets of sites in a ResNet with a feature pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from visionattn.backbones.efficient_attention_places import efficient_attention_places
from visionattn.backbones.timm_backbone import TimmBackbone
from visionattn.blocks import AttentionPlugin
from visionattn.necks import FPN


def pyramid(modules: int | None) -> tuple[TimmBackbone, FPN]:
    torch.manual_seed(0)
    places = {"backbone": None, "neck": None} if modules is None else efficient_attention_places(modules)
    backbone = TimmBackbone("test_resnet", attention=places["backbone"])
    neck = FPN(backbone.out_channels, 8, extra_levels="LastLevelMaxPool", attention=places["neck"])
    return backbone.eval(), neck


def maps(parts: tuple[TimmBackbone, FPN], x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return parts[1](parts[0](x))


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (1, {"layer3": 8}),
        (5, {"layer2": 4, "layer3": 8, "1": 4, "2": 8, "3": 16}),
        (7, {"layer2": 4, "layer3": 8, "0": 2, "1": 4, "2": 8, "3": 16, "4": 32}),
    ],
)
def test_modules_stand_at_their_strides(modules: int, expected: dict[str, int]) -> None:
    """By the maps that come to them in a forward: 64 / size is the stride, halved to keep the numbers small."""
    parts = pyramid(modules)
    seen: dict[str, int] = {}

    def watch(name: str, plugin: nn.Module) -> None:
        plugin.register_forward_hook(lambda module, args, output: seen.__setitem__(name, 64 // args[0].shape[-1]))

    for part in parts:
        for name, module in part.named_modules():
            if isinstance(module, AttentionPlugin):
                watch(name.split(".")[1], module)
    maps(parts, torch.zeros(1, 3, 128, 128))
    assert seen == expected


@pytest.mark.parametrize("modules", [1, 5, 7])
def test_nothing_changes_at_first_and_something_when_trained(modules: int) -> None:
    plain, parts = pyramid(None), pyramid(modules)
    for ours, theirs in zip(parts, plain, strict=True):
        ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(1, 3, 96, 128)
    expected = maps(plain, x)
    assert all(torch.equal(a, b) for a, b in zip(maps(parts, x), expected, strict=True))
    plugins = [m for part in parts for m in part.modules() if isinstance(m, AttentionPlugin)]
    assert len(plugins) == modules
    for plugin in plugins:
        nn.init.constant_(plugin.gamma, 0.5)
    changed = [not torch.equal(a, b) for a, b in zip(maps(parts, x), expected, strict=True)]
    assert changed == [True] * 5


def test_the_config_is_the_callers() -> None:
    cfg = {"type": "AttentionPlugin", "attention": {"type": "SoftmaxAttention", "num_heads": 1}, "norm": True}
    places = efficient_attention_places(5, cfg)
    assert list(places["backbone"].values()) == [cfg] * 2
    assert list(places["neck"].values()) == [cfg] * 3


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"modules=3: the paper has 1, 5 and 7; for others"):
        efficient_attention_places(3)
