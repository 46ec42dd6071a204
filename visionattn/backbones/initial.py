"""How the linear layers of vision transformers start."""

from __future__ import annotations

from torch import nn

from visionattn.attention.base import QKVAttention
from visionattn.blocks.mlp import Mlp


def init_linears(model: nn.Module) -> None:
    """MLPs and the projections around attention: weights truncated N(0, 0.02), biases zero, as in ViT and Swin.

    What else a mechanism has starts as it says itself.
    """
    for module in model.modules():
        owned: list[nn.Module] = []
        if isinstance(module, Mlp):
            owned = [module.fc1, module.fc2]
        elif isinstance(module, QKVAttention):
            owned = [module.qkv, module.proj]
        for linear in owned:
            if isinstance(linear, nn.Linear):
                init_linear(linear)


def init_linear(linear: nn.Linear) -> None:
    """Weights truncated N(0, 0.02), bias zero."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
