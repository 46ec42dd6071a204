"""A softmax over a map between channels, K^T V, in the place of one between tokens."""

from __future__ import annotations

from torch import Tensor

from visionattn.ops.precision import at_least_float32, without_autocast


def channel_map_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Q softmax(K^T V / sqrt(M)), the softmax over the channels of V; in float32 at least.

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real; M is then their number.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(q.device):
        queries, keys, values = (at_least_float32(t) for t in (q, k, v))
        if mask is None:
            summed = keys.mT @ values * k.shape[2] ** -0.5
        else:
            hidden = ~mask[:, None, :, None]
            summed = keys.masked_fill(hidden, 0.0).mT @ values.masked_fill(hidden, 0.0)
            summed = summed * mask.sum(dim=1).clamp(min=1)[:, None, None, None].to(summed.dtype).rsqrt()
        return (queries @ summed.softmax(dim=-1)).to(v.dtype)
