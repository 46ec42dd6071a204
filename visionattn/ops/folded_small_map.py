"""Folded efficient attention of maps so small that calls cost more than arithmetic; forward only.

The algebra is that of `folded_efficient_attention`, except that V is computed after all: by head, V and V P^T take
fewer calls than X P^T. One flat function on torch's own softmax, whose every extra call would be felt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.folded_whole_map import Options, Weights, in_order_of


def forward_small_map(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """As `forward_whole_map`; heads join the batch, which for one image takes no copy."""
    heads, dim, temperature, adds_x = options
    batch, tokens, channels = x.shape
    weight, bias, maps = weights.qkv.expand(batch, -1, -1), weights.qkv_bias, x.mT
    projected = torch.bmm(weight, maps) if bias is None else torch.baddbmm(bias[:, None], weight, maps)
    if temperature != 1.0:
        projected[:, : 2 * dim] /= temperature
    queries, keys, values = (
        part.reshape(batch * heads, -1, tokens)
        for part in torch.split(projected, [dim, dim, projected.shape[1] - 2 * dim], dim=1)
    )
    context = torch.bmm(values, keys.softmax(2).mT)  # [B * heads, e, d]
    output = weights.proj.view(channels, heads, -1).transpose(0, 1)  # [heads, C, e]
    if batch > 1:
        output = output.repeat(batch, 1, 1)
    mixing = torch.bmm(output, context).view(batch, heads, channels, -1).transpose(1, 2).reshape(batch, channels, dim)
    if weights.proj_bias is not None:
        mixing.add_(weights.proj_bias[:, None], alpha=1 / heads)
    if scale is not None:
        mixing *= scale[:, None]
    return in_order_of(x, x if adds_x else residual, mixing, queries.softmax(1).view(batch, dim, tokens))
