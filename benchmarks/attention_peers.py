"""What the efficient-attention block is measured against; written from the equations, all on [B, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.efficient import EfficientAttention
from visionattn.blocks.plugin import AttentionPlugin


def our_block(channels: int, key_dim: int, heads: int) -> AttentionPlugin:
    """x + EfficientAttention(x), values as wide as the map."""
    attention = {"type": "EfficientAttention", "key_dim": key_dim, "num_heads": heads}
    return AttentionPlugin(channels, attention, zero_init=False)


class _Projections(nn.Module):
    """1 x 1 convolutions to queries, keys and values, and back."""

    def __init__(self, channels: int, key_dim: int, value_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Conv2d(channels, key_dim, 1)
        self.keys = nn.Conv2d(channels, key_dim, 1)
        self.values = nn.Conv2d(channels, value_dim, 1)
        self.reprojection = nn.Conv2d(value_dim, channels, 1)

    def copy_weights(self, mixer: EfficientAttention) -> None:
        """Takes the weights of our mixer."""
        q, k = mixer.key_dim, 2 * mixer.key_dim
        with torch.no_grad():
            for conv, part in ((self.queries, slice(q)), (self.keys, slice(q, k)), (self.values, slice(k, None))):
                conv.weight.copy_(mixer.qkv.weight[part, :, None, None])
                conv.bias.copy_(mixer.qkv.bias[part])
            self.reprojection.weight.copy_(mixer.proj.weight[..., None, None])
            self.reprojection.bias.copy_(mixer.proj.bias)


class PerHeadLoop(_Projections):
    """Efficient attention as published: a loop over heads, concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        queries, keys, values = (conv(x).flatten(2) for conv in (self.queries, self.keys, self.values))
        attended = []
        for q, k, v in zip(*(t.chunk(self.heads, dim=1) for t in (queries, keys, values)), strict=True):
            context = F.softmax(k, dim=2) @ v.transpose(1, 2)
            attended.append((context.transpose(1, 2) @ F.softmax(q, dim=1)).reshape(batch, -1, height, width))
        return self.reprojection(torch.cat(attended, dim=1)) + x


class Batched(_Projections):
    """The same with the heads in the batch of one matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = (
            conv(x).reshape(batch * self.heads, -1, height * width) for conv in (self.queries, self.keys, self.values)
        )
        context = torch.bmm(v, F.softmax(k, dim=2).transpose(1, 2))
        attended = torch.bmm(context, F.softmax(q, dim=1))
        return self.reprojection(attended.reshape(batch, -1, height, width)) + x


class FusedSoftmax(_Projections):
    """Quadratic attention through torch's fused kernel, which on the CPU needs values as wide as the keys."""

    def __init__(self, channels: int, key_dim: int, heads: int) -> None:
        super().__init__(channels, key_dim, key_dim, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        # Contiguous tokens: on channels-first views torch falls back silently to the form that stores N x N.
        q, k, v = (
            conv(x).reshape(batch, self.heads, -1, height * width).transpose(2, 3).contiguous()
            for conv in (self.queries, self.keys, self.values)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return self.reprojection(attended.reshape(batch, -1, height, width)) + x


def non_local(channels: int) -> nn.Module:
    """mmcv's NonLocal2d: embedded Gaussian, half the channels inside, one head."""
    from mmcv.cnn import NonLocal2d

    return NonLocal2d(channels, reduction=2, mode="embedded_gaussian")
