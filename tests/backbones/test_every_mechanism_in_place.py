"""Every registered mechanism inside a ResNet, a vision transformer and between two views, at two resolutions each.

Mechanisms are taken from the registry: a new file in attention/ is covered by itself.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from visionattn import create_backbone
from visionattn.attention.base import ContextMixer, TokenMixer
from visionattn.attention.build import attention_class, list_attention
from visionattn.blocks import AttentionPlugin
from visionattn.blocks.cross_view import CrossViewBlock

NAMES = list_attention()
CONTEXT_NAMES = [name for name in NAMES if issubclass(attention_class(name), ContextMixer)]
DIM = 16
GRID, OTHER = (4, 6), (5, 3)
"""Of the maps that the mechanisms see; the first is the one that they are made for."""


def image(grid: tuple[int, int], stride: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, *(stride * extent for extent in grid), generator=generator)


def features(grid: tuple[int, int], seed: int) -> Tensor:
    return torch.randn(2, DIM, *grid, generator=torch.Generator().manual_seed(seed))


def awake(host: nn.Module) -> list[TokenMixer]:
    """The host's mechanisms, each parameter of them and of their places a random number: zeros would let nothing in."""
    torch.manual_seed(2)
    mixers = [module for module in host.modules() if isinstance(module, TokenMixer)]
    places = [module for module in host.modules() if isinstance(module, AttentionPlugin | CrossViewBlock)]
    with torch.no_grad():
        for parameter in {id(p): p for module in (*mixers, *places) for p in module.parameters()}.values():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return mixers


def check_gradients(outputs: list[Tensor], inputs: list[Tensor], mixers: list[TokenMixer]) -> None:
    """Answers and gradients are finite, and a gradient comes to every input and every parameter of the mechanisms."""
    assert all(out.isfinite().all() for out in outputs)
    for mixer in mixers:
        mixer.zero_grad()
    sum(out.square().mean() for out in outputs).backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.any()
    for mixer in mixers:
        for name, parameter in mixer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # Of a bias on keys it is zero, but for rounding: softmax takes away what all keys have in common.
            assert parameter.grad.any() or parameter.dim() == 1, name


def shapes(host: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in host.state_dict().items()}


def in_resnet(name: str) -> None:
    backbone = create_backbone(
        {
            "type": "TimmBackbone",
            "model_name": "resnet18",
            "timm_options": {"layers": (1, 1, 1, 1), "channels": (8, 8, DIM, DIM), "zero_init_last": False},
            "attention": [None, None, {"type": name, "grid": GRID}, None],
        }
    )
    before, mixers = shapes(backbone), awake(backbone)
    plugins = [module for module in backbone.modules() if isinstance(module, AttentionPlugin)]
    assert [type(plugin.attn) for plugin in plugins] == [attention_class(name)]
    for grid in (GRID, OTHER):
        x = image(grid, 16).requires_grad_()
        maps = backbone(x)
        assert maps[2].shape == (2, DIM, *grid)
        check_gradients(maps, [x], mixers)
    assert shapes(backbone) == before


def in_vision_transformer(name: str) -> None:
    backbone = create_backbone(
        {
            "type": "VisionTransformer",
            "embed_dim": DIM,
            "depth": 1,
            "num_heads": 4,
            "patch": (4, 4),
            "image_size": [4 * extent for extent in GRID],
            "attention": name,
            "class_token": False,
        }
    )
    before, mixers = shapes(backbone), awake(backbone)
    assert [type(mixer) for mixer in mixers] == [attention_class(name)]
    for grid in (GRID, OTHER):
        x = image(grid, 4).requires_grad_()
        (answer,) = backbone(x)
        assert answer.shape == (2, DIM, *grid)
        check_gradients([answer], [x], mixers)
    assert shapes(backbone) == before


def between_views(name: str) -> None:
    rows = 2 not in attention_class(name).grid_dims
    block = CrossViewBlock(DIM, name, GRID[1:] if rows else GRID, rows=rows)
    before, mixers = shapes(block), awake(block)
    for grid in (GRID, OTHER):
        left, right = (features(grid, seed).requires_grad_() for seed in (3, 4))
        answers = block(left, right)
        assert [answer.shape for answer in answers] == [left.shape, right.shape]
        check_gradients([answers[0]], [left, right], mixers)  # what the left sees comes from both
    assert shapes(block) == before


PLACES = [(place, name) for place in (in_resnet, in_vision_transformer) for name in NAMES]
PLACES += [(between_views, name) for name in CONTEXT_NAMES]


def test_the_registry_was_found() -> None:
    assert {"SoftmaxAttention", "WindowAttention", "Mega", "ChannelAttention"} <= set(NAMES)
    assert {"SoftmaxAttention", "EfficientAttention"} <= set(CONTEXT_NAMES)
    assert "WindowAttention" not in CONTEXT_NAMES


@pytest.mark.parametrize(("place", "name"), PLACES, ids=[f"{name}-{place.__name__}" for place, name in PLACES])
def test_runs_and_learns_in_its_place_at_two_resolutions(place: object, name: str) -> None:
    torch.manual_seed(0)
    place(name)  # type: ignore[operator]
