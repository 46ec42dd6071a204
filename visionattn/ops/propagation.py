"""Disparities averaged by the likeness of features, as GMStereo does after matching (arXiv 2211.05783, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


def propagated_disparity(disparity: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """At each position the mean disparity of all positions, weighted by softmax(<query, key> / sqrt(C)).

    Args:
        disparity: [B, H, W].
        query, key: [B, H, W, C].
    Returns:
        [B, H, W], in float32 at least: a half precision would round disparities to quarters of a pixel.
    """
    with without_autocast(disparity.device):
        q, k = (at_least_float32(t).flatten(1, 2).unsqueeze(1) for t in (query, key))  # [B, 1, H * W, C]
        values = disparity.to(q.dtype).flatten(1)[:, None, :, None]
        return F.scaled_dot_product_attention(q, k, values).reshape(disparity.shape)


def locally_propagated_disparity(disparity: Tensor, query: Tensor, key: Tensor, radius: int) -> Tensor:
    """The same over the (2 * radius + 1) ** 2 positions around each.

    Beyond the border stand disparities of 0 with keys of 0, which take part, as published.

    Args:
        disparity: [B, H, W].
        query, key: [B, H, W, C].
        radius: positions to each side.
    Returns:
        [B, H, W], in float32 at least.
    """
    height, width = disparity.shape[1:]
    query, key = at_least_float32(query) * query.shape[-1] ** -0.5, at_least_float32(key)
    keys = F.pad(key, (0, 0, radius, radius, radius, radius))
    values = F.pad(disparity.to(key.dtype), (radius, radius, radius, radius))
    windows = [
        (slice(None), slice(y, y + height), slice(x, x + width))
        for y in range(2 * radius + 1)
        for x in range(2 * radius + 1)
    ]
    weights = torch.stack([(query * keys[window]).sum(-1) for window in windows]).softmax(dim=0)
    return (weights * torch.stack([values[window] for window in windows])).sum(0)
