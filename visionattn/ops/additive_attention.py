"""Additive attention of one query (Bahdanau et al., ICLR 2015), as stacked attention networks look at a map."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.efficient_attention import softmax_over_positions
from visionattn.ops.precision import at_least_float32, without_autocast


def additive_attention(
    query: Tensor, keys: Tensor, weight: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """sum_m softmax_m(weight . tanh(keys_m + query)) values_m, the softmax and the sum in float32 at least.

    Args:
        query: [B, K].
        keys: [B, M, K].
        weight: [K].
        values: [B, M, D].
        mask: [B, M] bool, True where a position is real; without any the answer is 0.
    Returns:
        [B, D], in the dtype of values.
    """
    with without_autocast(values.device):
        query, keys = at_least_float32(query), at_least_float32(keys)
        scores = F.linear((keys + query[:, None]).tanh(), weight.to(keys.dtype)[None])
        shares = softmax_over_positions(scores[:, None], mask)[:, 0]  # [B, M, 1]
        return (shares.mT @ at_least_float32(values)).squeeze(1).to(values.dtype)


def mean_token(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean [B, D] of the real tokens of [B, N, D], in float32 at least; 0 where mask [B, N] has none."""
    tokens = at_least_float32(tokens)
    if mask is None:
        return tokens.mean(1)
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return tokens.masked_fill(~mask[..., None], 0.0).sum(1) / count
