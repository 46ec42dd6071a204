"""Efficient attention on q, k, v (Shen et al., WACV 2021, arXiv 1812.01243): linear in the number of tokens.

Every softmax and every sum over tokens runs in float32 at least, also under autocast. Either memory order is taken as
it is: views [B, heads, N, D] of channels-first memory [B, heads, D, N] are not transposed, and neither is the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.kernels.dispatch import asked_for, serves
from visionattn.ops.kernels.efficient_attention import efficient_attention_op
from visionattn.ops.precision import at_least_float32, without_autocast


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
        [B, heads, N, E], in the dtype of v and the memory order of q.
    """
    if asked_for(q) and serves("efficient_attention", q, k, v, mask):
        return efficient_attention_op(q, k, v, mask, temperature, normalize_queries)[0]
    with without_autocast(q.device):
        q, k, values = (at_least_float32(t) for t in (q, k, v))
        if temperature != 1.0:
            q, k = q / temperature, k / temperature
        context = (values.mT @ softmax_over_positions(k, mask)).mT  # [B, heads, D, E]
        queries = _softmax(q, over_channels=True) if normalize_queries else q
        return _in_order_of(q, queries, context).to(v.dtype)


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
        [B, heads, N, E], in the dtype of v and the memory order of q.
    """
    with without_autocast(q.device):
        q, k, values = (at_least_float32(t) for t in (q, k, v))
        if mask is not None:
            k = k.masked_fill(~mask[:, None, :, None], 0.0)
            values = values.masked_fill(~mask[:, None, :, None], 0.0)
        context = k.mT @ values
        if scale is not None:
            context = context * scale
        elif mask is None:
            context = context / k.shape[-2]
        else:
            context = context / mask.sum(dim=1).clamp(min=1)[:, None, None, None]
        return _in_order_of(q, q, context).to(v.dtype)


def softmax_over_positions(k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of k [B, heads, M, D] over M; masked positions weigh 0, all of them if none is real."""
    if mask is None:
        return _softmax(k, over_channels=False)
    hidden = ~mask[:, None, :, None]
    return _softmax(k.masked_fill(hidden, torch.finfo(k.dtype).min), over_channels=False).masked_fill(hidden, 0.0)


def project_maps(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The linear layer of channels-first maps [B, C, N]: [B, out, N], one product of matrices per image."""
    weights = weight.expand(len(maps), -1, -1)
    return torch.bmm(weights, maps) if bias is None else torch.baddbmm(bias[:, None], weights, maps)


def is_channels_first(x: Tensor) -> bool:
    """True for a map whose positions lie next to each other in memory, not its channels (the last dimension)."""
    return x.stride(-1) != 1 and x.stride(-2) == 1


def _softmax(t: Tensor, *, over_channels: bool) -> Tensor:
    """Softmax of [.., N, D] over D or N, without the transposed copy that torch makes of channels-first memory."""
    if is_channels_first(t):
        return t.mT.softmax(dim=-2 if over_channels else -1).mT
    return t.softmax(dim=-1 if over_channels else -2)


def _in_order_of(q: Tensor, queries: Tensor, context: Tensor) -> Tensor:
    """queries [.., N, D] times context [.., D, E], in the memory order of q."""
    return (context.mT @ queries.mT).mT if is_channels_first(q) else queries @ context
