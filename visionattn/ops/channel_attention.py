"""Attention whose tokens are the channels."""

from __future__ import annotations

from torch import Tensor

from visionattn.ops.precision import at_least_float32, without_autocast


def channel_attention(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) applied to the channels of every token: the answer of channel c is a mean of channels.

    Args:
        q, k: [B, C, d], of the channels.
        values: [B, N, C].
    Returns:
        [B, N, C].
    """
    with without_autocast(q.device):
        logits = (at_least_float32(q) * q.shape[-1] ** -0.5) @ at_least_float32(k).mT
        weights = logits.softmax(dim=-1)
        return values @ weights.to(values.dtype).mT
