"""AFT-full (Zhai et al., arXiv 2105.14103) in raster order: a token gathers from itself and those before it.

    y_t = sum_{j <= t} exp(k_j + w_tj) * v_j / sum_{j <= t} exp(k_j + w_tj)      channel by channel

Chunks of tokens are walked in order. The largest numbers that are taken off are those of earlier tokens, and within a
chunk those of each token alone. A chunk's part of w is made of its factors and made again in the backward pass, so that
memory grows linearly with the number of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visionattn.ops.precision import at_least_float32, without_autocast

_CHUNK = 32


def causal_aft_full(k: Tensor, v: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """What each token gathers, without the gate of queries.

    Args:
        k, v: [B, N, D], in raster order.
        row, column: [F, N]; w_tj = row_t . column_j.
    Returns:
        [B, N, D], in the dtype of v.
    """
    with without_autocast(k.device):
        keys, values, rows, columns = (at_least_float32(t) for t in (k, v, row, column))
        out = []
        for start in range(0, k.shape[1], _CHUNK):
            end = start + _CHUNK
            arguments = keys[:, :end], values[:, :end], rows[:, start:end], columns[:, :end]
            out.append(checkpoint(_of_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(out, dim=1).to(v.dtype)


def _of_chunk(k: Tensor, v: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The answers of the last c tokens of k and v [B, n, D], with their rows [F, c] and the columns [F, n]."""
    start = k.shape[1] - row.shape[1]
    bias = row.mT @ column  # [c, n]
    later = torch.ones_like(bias[:, start:], dtype=torch.bool).triu(1)
    near = k[:, None, start:] + bias[None, :, start:, None].masked_fill(later[..., None], -torch.inf)  # [B, c, c, D]
    largest = near.detach().amax(dim=2)
    if start:
        largest_key = k[:, :start].detach().amax(dim=1, keepdim=True)  # [B, 1, D]
        largest_bias = bias[:, :start].detach().amax(dim=1, keepdim=True)  # [c, 1]
        largest = torch.maximum(largest, largest_key + largest_bias)
    weights = (near - largest.unsqueeze(2)).exp()
    numerator, denominator = (weights * v[:, None, start:]).sum(2), weights.sum(2)
    if start:
        keys = (k[:, :start] - largest_key).exp()
        sums = (bias[:, :start] - largest_bias).exp() @ torch.cat([keys * v[:, :start], keys], dim=-1)
        sums = sums * (largest_key + largest_bias - largest).exp().repeat(1, 1, 2)
        far, far_weights = sums.chunk(2, dim=-1)
        numerator, denominator = numerator + far, denominator + far_weights
    return numerator / denominator.masked_fill(denominator == 0, 1.0)
