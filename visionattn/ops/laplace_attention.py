"""Attention whose weights are a squashed logit each, without a sum over keys (Mega, arXiv 2209.10655, section 3.6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visionattn.ops.precision import at_least_float32, without_autocast

_MEAN, _DEVIATION = 0.707107, 0.282095  # sqrt(1 / 2) and sqrt(1 / (4 pi)), to the digits of the official code


def laplace(logits: Tensor) -> Tensor:
    """(1 + erf((logits - mu) / (sigma sqrt 2))) / 2, which near mu is as steep as a squared relu."""
    return 0.5 * (1 + torch.erf((logits - _MEAN) / (_DEVIATION * math.sqrt(2))))


def laplace_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, hidden: Tensor | None = None
) -> Tensor:
    """laplace(Q K^T / M + bias) V, M the number of keys that are not hidden.

    Args:
        q: [..., N, D].
        k: [..., M, D].
        v: [..., M, E].
        bias: [..., N, M] or what can be spread to it.
        hidden: bool, likewise, True where a query must not see a key.
    Returns:
        [..., N, E]; zeros where no key is seen.
    """
    with without_autocast(q.device):
        logits = at_least_float32(q) @ at_least_float32(k).mT
        count = k.shape[-2] if hidden is None else (~hidden).sum(dim=-1, keepdim=True).clamp(min=1)
        weights = laplace(logits / count if bias is None else logits / count + bias)
        if hidden is not None:
            weights = weights.masked_fill(hidden, 0.0)
        return (weights @ at_least_float32(v)).to(v.dtype)
