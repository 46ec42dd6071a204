"""Efficient attention on q, k, v (Shen et al., WACV 2021, arXiv 1812.01243): linear in the number of tokens.

Every softmax and every sum over tokens runs in float32 at least, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    normalize_queries: bool = True,
) -> Tensor:
    """softmax over channels of Q times (softmax over positions of K, transposed, times V).

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
        temperature: divides q and k before their softmax.
        normalize_queries: False leaves out the softmax of Q (not its temperature).
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, values = (_at_least_float32(t) for t in (q, k, v))
        if temperature != 1.0:
            q, k = q / temperature, k / temperature
        weights = softmax_over_positions(k, mask)
        context = weights.transpose(-2, -1) @ values  # [B, heads, D, E]
        queries = q.softmax(dim=-1) if normalize_queries else q
        return (queries @ context).to(v.dtype)


def scaled_efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """scale * Q (K^T V): efficient attention with scaling normalisation, equal to the dot-product (Q K^T) V.

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real.
        scale: 1 / (number of real keys) if None, as in the paper.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, values = (_at_least_float32(t) for t in (q, k, v))
        if mask is not None:
            k = k.masked_fill(~mask[:, None, :, None], 0.0)
            values = values.masked_fill(~mask[:, None, :, None], 0.0)
        context = k.transpose(-2, -1) @ values
        if scale is not None:
            context = context * scale
        elif mask is None:
            context = context / k.shape[-2]
        else:
            context = context / mask.sum(dim=1).clamp(min=1)[:, None, None, None]
        return (q @ context).to(v.dtype)


def softmax_over_positions(k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of k [B, heads, M, D] over M; masked positions weigh 0, all of them if none is real."""
    if mask is None:
        return k.softmax(dim=-2)
    hidden = ~mask[:, None, :, None]
    return k.masked_fill(hidden, torch.finfo(k.dtype).min).softmax(dim=-2).masked_fill(hidden, 0.0)


def _at_least_float32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
