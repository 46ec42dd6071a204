"""Lambdas (Bello, LambdaNetworks, ICLR 2021, arXiv 2102.08602): linear functions made of a context, applied to queries.

    y_n = (sum_m softmax_m(k_m) v_m + sum_m E_nm v_m)^T q_n        summed over the intra-depth u as well

The first sum is one lambda for all queries, the second one for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.efficient_attention import softmax_over_positions
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.token_mixing import resized_on_grid

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def content_lambda(k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the context says to every query.

    Args:
        k: [B, U, M, K]; its softmax over M, and the sum, run in float32 at least.
        v: [B, U, M, E].
        mask: [B, M] bool, True where a token is real.
    Returns:
        [B, K, E], in the dtype of v.
    """
    with without_autocast(k.device):
        weights = softmax_over_positions(at_least_float32(k), mask)
        return (weights.mT @ at_least_float32(v)).sum(1).to(v.dtype)


def local_position_lambdas(v: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """What the neighbourhood says to each query: the lambda convolution.

    Channels of v go with the batch, so that a map is convolved in its own two dimensions: a Conv3d with a kernel of
    (1, r, r) is the same and slow.

    Args:
        v: [B, U, *grid, E], 0 where there is no real token.
        kernel: [K, U, r, ..], r odd; kernel[.., r // 2 + o] is E for a token at n + o. No token lies beyond the edge.
        bias: [K], added to every lambda.
    Returns:
        [B, N, K, E].
    """
    batch, depth, *grid, width = v.shape
    maps = v.movedim(-1, 1).reshape(batch * width, depth, *grid)
    lambdas = _CONVOLUTIONS[len(grid)](maps, kernel, bias, padding=kernel.shape[-1] // 2)
    return lambdas.reshape(batch, width, len(kernel), math.prod(grid)).permute(0, 3, 2, 1)


def global_position_lambdas(v: Tensor, table: Tensor) -> Tensor:
    """What the whole map says to each query, by where it lies to it; E of all pairs is held in memory.

    Args:
        v: [B, U, *grid, E], 0 where there is no real token.
        table: [K, U, *(2 * grid - 1)]; table[.., extent - 1 + o] is E for a token at n + o.
    Returns:
        [B, N, K, E].
    """
    grid = v.shape[2:-1]
    dims, pairs = len(grid), table
    for axis, extent in enumerate(grid, start=2):
        pairs = pairs.unfold(axis, extent, 1)  # the window that starts at s is that of the query at extent - 1 - s
    pairs = pairs.flip(tuple(range(2, 2 + dims))).flatten(2, 1 + dims).flatten(3)  # [K, U, N, M]
    rows = pairs.permute(2, 0, 1, 3).flatten(2).flatten(0, 1)  # [N * K, U * M]
    lambdas = rows @ v.flatten(1, -2)
    return torch.unflatten(lambdas, 1, (-1, len(table)))


def resized_offsets(table: Tensor, grid: Sequence[int]) -> Tensor:
    """A table [K, U, *offsets] for the offsets of another grid, from -(extent - 1) to extent - 1 along each axis.

    A lambda sums over all positions: where there are n / n0 times as many, each is worth that much less.
    """
    extents = [2 * extent - 1 for extent in grid]
    if list(table.shape[2:]) == extents:
        return table
    learned = math.prod((offsets + 1) // 2 for offsets in table.shape[2:])
    resized = resized_on_grid(table.flatten(0, 1), extents) * (learned / math.prod(grid))
    return resized.reshape(*table.shape[:2], *extents)


def apply_lambdas(q: Tensor, content: Tensor, positional: Tensor) -> Tensor:
    """[B, N, heads, E] of q [B, N, heads, K], a lambda for all [B, K, E] and one for each query [B, N, K, E]."""
    return torch.matmul(q, content[:, None] + positional)
