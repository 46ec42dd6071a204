"""The whole efficient-attention mixer, projections included, folded: exact, with less work and far less memory.

With X [C, N], heads h, P_h = softmax over tokens of K_h, R_h = softmax over channels of Q_h (Shen et al., WACV 2021):

    G_h = V_h P_h^T = Wv_h (X P_h^T) + bv_h 1^T      rows of P_h sum to 1: V is never computed
    y = Wp [G_1 R_1; ..; G_H R_H] + bp = M R         columns of R_h sum to 1: bp / H is added to M
    M = [Wp_1 G_1, .., Wp_H G_H] + bp 1^T / H        the attended values are never computed
    bk cancels in the softmax over tokens: its gradient is 0

What grows with N: four matrix products of C x D x N forward, eight backward. Exponentials are taken without subtracting
a maximum first and judged by their sums; where a sum is out of range, they are taken again with it subtracted.
Not valid when anything acts between V and the projection, or between qkv or proj and their outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visionattn.ops.folded_chunks import forward_in_chunks
from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.folded_small_map import forward_small_map
from visionattn.ops.folded_whole_map import FoldedWholeMap, forward_whole_map
from visionattn.ops.kernels.dispatch import asked_for
from visionattn.ops.kernels.folded_attention import folded_attention_op

_CACHED_BYTES = 10 * 2**20
"""Up to this much of X, Q and K, whole maps are as fast as chunks or faster (measured for 64 and 256 channels)."""

_FEW_BYTES = 3 * 2**20
"""Up to this much of X, Q, K and V, calls cost more than traffic (measured for 32 to 128 channels) ..."""

_FEW_MULTIPLICATIONS = 2**22
"""... and, up to this many, more than what the plain equations multiply beyond the folded ones."""


def folded_efficient_attention(
    x: Tensor,
    weights: Weights,
    *,
    num_heads: int,
    key_dim: int,
    temperature: float = 1.0,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """residual + scale * proj(efficient attention of qkv(x)), differentiable once.

    By its op where there are kernels. On the CPU on whole maps where a backward follows, which needs R and E anyway,
    and for small maps; else in chunks of tokens, so that nothing of the size of the map is stored but the answer.

    Args:
        x: [B, *grid, C], not empty, of any strides; fast where tokens (channels last) or channels (channels first) are
            contiguous. On the CPU float32 or float64.
        weights: of the layers: queries, keys and values [2 * key_dim + value_dim, C], projection [C, value_dim]; on the
            CPU in the dtype of x.
        num_heads: divides key_dim and value_dim.
        key_dim: width of the queries and of the keys over all heads.
        temperature: divides queries and keys before their softmax.
        residual: [B, *grid, C], added at the end; x itself is best.
        scale: [C], multiplies the mixer's output.
    Returns:
        [B, *grid, C] in the memory order of x; in the dtype of the residual, that of the weights without one.
    """
    shape = x.shape
    batch, *grid, channels = shape
    tokens = math.prod(grid)
    sequence = (batch, tokens, channels)
    adds_x = residual is x
    x = x.reshape(sequence)
    residual = None if adds_x or residual is None else residual.reshape(sequence)
    options = Options(num_heads, key_dim, temperature, adds_x)
    if asked_for(x):
        return folded_attention_op(x, residual, scale, *weights, *options)[0].view(shape)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, residual, scale, *weights)):
        return FoldedWholeMap.apply(options, x, residual, scale, *weights).view(shape)
    rows = weights.qkv.shape[0]
    beyond_folded = 2 * (channels * (rows - 3 * key_dim) + key_dim * (rows - 2 * key_dim) // num_heads)
    if (
        batch * tokens * (channels + rows) * x.element_size() <= _FEW_BYTES
        and batch * tokens * beyond_folded <= _FEW_MULTIPLICATIONS
    ):
        form = forward_small_map
    elif tokens * (channels + 2 * key_dim) * x.element_size() <= _CACHED_BYTES:
        form = forward_whole_map
    else:
        form = forward_in_chunks
    return form(options, x, residual, scale, weights).view(shape)
