"""Blocks that efficient attention's is measured against; written from the equations, all on [B, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import QKVAttention


class Projections(nn.Module):
    """1 x 1 convolutions to queries, keys and values, and back."""

    def __init__(self, channels: int, key_dim: int, value_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Conv2d(channels, key_dim, 1)
        self.keys = nn.Conv2d(channels, key_dim, 1)
        self.values = nn.Conv2d(channels, value_dim, 1)
        self.reprojection = nn.Conv2d(value_dim, channels, 1)

    def copy_weights(self, mixer: QKVAttention) -> None:
        """Takes the weights of our mixer."""
        q, k = mixer.key_dim, 2 * mixer.key_dim
        with torch.no_grad():
            for conv, part in ((self.queries, slice(q)), (self.keys, slice(q, k)), (self.values, slice(k, None))):
                _fill(conv, mixer.qkv.weight[part], mixer.qkv.bias[part])
            _fill(self.reprojection, mixer.proj.weight, mixer.proj.bias)


class PerHeadLoop(Projections):
    """Efficient attention as published: a loop over heads, concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        queries, keys, values = (conv(x).flatten(2) for conv in (self.queries, self.keys, self.values))
        attended = []
        for q, k, v in zip(*(t.chunk(self.heads, dim=1) for t in (queries, keys, values)), strict=True):
            context = F.softmax(k, dim=2) @ v.transpose(1, 2)
            attended.append((context.transpose(1, 2) @ F.softmax(q, dim=1)).reshape(batch, -1, height, width))
        return self.reprojection(torch.cat(attended, dim=1)) + x


class Batched(Projections):
    """The same with the heads in the batch of one matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = (
            conv(x).reshape(batch * self.heads, -1, height * width) for conv in (self.queries, self.keys, self.values)
        )
        context = torch.bmm(v, F.softmax(k, dim=2).transpose(1, 2))
        attended = torch.bmm(context, F.softmax(q, dim=1))
        return self.reprojection(attended.reshape(batch, -1, height, width)) + x


class FusedSoftmax(Projections):
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


class DoubleBlock(Projections):
    """Double attention in the order of its paper: features gathered by B, distributed by V; on [B, H, W, C]."""

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        maps = x.permute(0, 3, 1, 2)
        gather, distribute = self.keys(maps).flatten(2).softmax(-1), self.queries(maps).flatten(2).softmax(1)
        gathered = torch.bmm(self.values(maps).flatten(2), gather.transpose(1, 2))
        out = torch.bmm(gathered, distribute).reshape(batch, -1, height, width)
        return self.reprojection(out).permute(0, 2, 3, 1)


def _fill(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    assert conv.bias is not None, "all of these have one"
    conv.weight.copy_(weight[..., None, None])
    conv.bias.copy_(bias)
