"""Causal forms: a token answers from itself and the tokens before it in raster order; memory linear in their number.

Chunks of tokens are walked in order. What came before a chunk is a small matrix; inside it pairs are looked at.
Nothing of a later token enters an answer, not even a common factor that would cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.feature_attention import LINEAR_EPS, elu_plus_one, favor_exponents
from visionattn.ops.precision import at_least_float32, without_autocast

_CHUNK = 64
_FEW = 16
"""Tokens in a chunk where a pair has a weight per channel."""


def causal_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention with elu + 1 (Katharopoulos et al., 2020, section 3.3).

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(q.device):
        queries, keys = elu_plus_one(at_least_float32(q)), elu_plus_one(at_least_float32(k))
        return causal_feature_attention(queries, keys, at_least_float32(v), eps=LINEAR_EPS).to(v.dtype)


def causal_performer(q: Tensor, k: Tensor, v: Tensor, projection: Tensor) -> Tensor:
    """FAVOR+ (Choromanski et al., 2021) with the features' exponentials as they are, without a floor below them.

    The published code takes the keys' largest exponent over all tokens, and so lets a later token move the floor of
    earlier ones; here the largest so far is taken, which cancels.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        projection: [R, D].
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(q.device):
        q, k, values = (at_least_float32(t) for t in (q, k, v))
        queries, keys = (favor_exponents(t, projection.to(t.dtype)) for t in (q, k))
        queries = (queries - queries.amax(dim=-1, keepdim=True).detach()).exp()
        scale = keys.amax(dim=-1).detach().cummax(dim=-1).values
        keys = (keys - scale.unsqueeze(-1)).exp()
        return causal_feature_attention(queries, keys, values, log_scale=scale).to(v.dtype)


def causal_feature_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    eps: float = 0.0,
    feature_eps: float = 0.0,
    log_scale: Tensor | None = None,
) -> Tensor:
    """out_i = phi(q_i)^T sum_{j <= i} phi(k_j) v_j^T / phi(q_i)^T sum_{j <= i} phi(k_j).

    Args:
        q, k: features, [B, heads, N, R], none below 0.
        v: [B, heads, N, E].
        eps: added to every denominator.
        feature_eps: added to the sum over keys of every feature.
        log_scale: [B, heads, N], never falling: the features of key j are k_j exp(log_scale_j).
    Returns:
        [B, heads, N, E].
    """
    out = []
    context = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    total = q.new_zeros(*q.shape[:2], q.shape[-1])
    before: Tensor | None = None  # the scale of what is in the two sums, [B, heads, 1]
    for start in range(0, q.shape[2], _CHUNK):
        q_part, k_part, v_part = (t[:, :, start : start + _CHUNK] for t in (q, k, v))
        weights = (q_part @ k_part.mT).tril()  # [B, heads, c, c]
        old: Tensor | float = 1.0
        if log_scale is not None:
            scale = log_scale[:, :, start : start + _CHUNK]
            weights = weights * (scale.unsqueeze(-2) - scale.unsqueeze(-1)).clamp(max=0).exp()
            if before is not None:
                old = (before - scale).exp().unsqueeze(-1)
        numerator = weights @ v_part + old * (q_part @ context)
        denominator = weights.sum(-1, keepdim=True) + old * (q_part @ total.unsqueeze(-1))
        if feature_eps:
            denominator = denominator + feature_eps * q_part.sum(-1, keepdim=True)
        denominator = denominator + eps
        out.append(numerator / denominator.masked_fill(denominator == 0, 1.0))
        if log_scale is not None:
            last = scale[:, :, -1:]
            k_part = k_part * (scale - last).exp().unsqueeze(-1)
            if before is not None:
                fade = (before - last).exp()
                context, total = context * fade.unsqueeze(-1), total * fade
            before = last
        context = context + k_part.mT @ v_part
        total = total + k_part.sum(-2)
    return torch.cat(out, dim=2)


def causal_efficient_attention(q: Tensor, k: Tensor, v: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Efficient attention (Shen et al., WACV 2021) whose softmax over positions ends at the token that asks.

    out_i = sum_d softmax_d(q_i) sum_{j <= i} softmax_{j <= i}(k_jd) v_j: each key channel has its own denominator.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        temperature: divides q and k before their softmax.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(q.device):
        queries, keys, values = (at_least_float32(t) for t in (q, k, v))
        queries = (queries / temperature).softmax(dim=-1)
        keys = keys / temperature
        sums = keys.logcumsumexp(dim=2)  # [B, heads, N, D]
        out = []
        context: Tensor | None = None  # of the tokens before the chunk, each channel over its sum at their end
        for start in range(0, q.shape[2], _FEW):
            q_part, k_part, v_part, sum_part = (t[:, :, start : start + _FEW] for t in (queries, keys, values, sums))
            # [B, heads, c, c, D]: the share of key j in the sum that ends at i
            later = torch.ones(q_part.shape[2], q_part.shape[2], dtype=torch.bool, device=q.device).triu(1)
            logits = (k_part.unsqueeze(2) - sum_part.unsqueeze(3)).masked_fill(later[..., None], -torch.inf)
            weights = torch.einsum("bhid,bhijd->bhij", q_part, logits.exp())
            answer = weights @ v_part
            ends = sum_part[:, :, -1:]
            gained = (k_part - ends).exp().mT @ v_part  # [B, heads, D, E]
            if context is not None:
                known = sums[:, :, start - 1 : start]
                answer = answer + (q_part * (known - sum_part).exp()) @ context
                gained = gained + (known - ends).exp().mT * context
            out.append(answer)
            context = gained
        return torch.cat(out, dim=2).to(v.dtype)
