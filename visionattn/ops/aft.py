"""Attention-free gathering (Zhai et al., An Attention Free Transformer, arXiv 2105.14103), without the gate of queries.

    y_t = sum_j exp(k_j + w_tj) * v_j / sum_j exp(k_j + w_tj)      channel by channel

Each channel's largest key, and each row's largest w, are taken off first. Sums run in the dtype of what they are given,
the causal form's in float32 at least.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CHUNK = 64


def aft_simple(k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """w = 0: one vector for all queries, [B, 1, D], of k and v [B, M, D]; mask [B, M], True = real."""
    weights = _exponentials(k, mask)
    return _ratio((weights * v).sum(1, keepdim=True), weights.sum(1, keepdim=True))


def causal_aft_simple(k: Tensor, v: Tensor) -> Tensor:
    """w = 0 for what came before and a token itself, in raster order: [B, N, D] of k and v [B, N, D], in v's dtype.

    Nothing overflows and no later key enters: running sums go with the largest key that they have seen. Memory grows
    linearly with N.
    """
    with without_autocast(k.device):
        keys, values = at_least_float32(k), at_least_float32(v)
        largest = keys.detach()
        weights = (keys - largest).exp()  # 1; its gradient is the keys'
        _, weights, values = _running_sums(largest, weights, weights * values)
        return (values / weights).to(v.dtype)


def _running_sums(largest: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Running sums of weights and values over tokens, all [B, N, D]; both stand for themselves times exp(largest).

    Inside chunks in steps that double; what earlier chunks hold is the running sum over their last tokens.
    """
    batch, tokens, _ = largest.shape
    chunks = (tokens + _CHUNK - 1) // _CHUNK
    if chunks > 1:
        behind = (0, 0, 0, chunks * _CHUNK - tokens)
        largest = F.pad(largest, behind, value=torch.finfo(largest.dtype).min)
        weights, values = F.pad(weights, behind), F.pad(values, behind)
        largest, weights, values = (t.reshape(batch * chunks, _CHUNK, -1) for t in (largest, weights, values))
    step = 1
    while step < largest.shape[1]:
        earlier = F.pad(largest[:, :-step], (0, 0, step, 0), value=-torch.inf)
        earlier_weights, earlier_values = (F.pad(t[:, :-step], (0, 0, step, 0)) for t in (weights, values))
        largest, weights, values = _added(largest, weights, values, earlier, earlier_weights, earlier_values)
        step *= 2
    if chunks == 1:
        return largest, weights, values
    largest, weights, values = (torch.unflatten(t, 0, (batch, chunks)) for t in (largest, weights, values))
    before = _running_sums(*(t[:, :-1, -1] for t in (largest, weights, values)))
    first = (0, 0, 1, 0)  # nothing comes before the first chunk
    earlier, earlier_weights, earlier_values = (
        F.pad(t, first, value=nothing)[:, :, None] for t, nothing in zip(before, (-torch.inf, 0.0, 0.0), strict=True)
    )
    sums = _added(largest, weights, values, earlier, earlier_weights, earlier_values)
    largest, weights, values = (t.flatten(1, 2)[:, :tokens] for t in sums)
    return largest, weights, values


def _added(
    largest: Tensor, weights: Tensor, values: Tensor, earlier: Tensor, earlier_weights: Tensor, earlier_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Two such sums as one."""
    top = torch.maximum(largest, earlier)
    old, new = (earlier - top).exp(), (largest - top).exp()
    return top, old * earlier_weights + new * weights, old * earlier_values + new * values


def aft_full(k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """Any w.

    Args:
        k, v: [B, M, D].
        bias: w [N, M].
        mask: [B, M] bool, True where a key is real.
    Returns:
        [B, N, D].
    """
    weights = _exponentials(k, mask)
    pairs = (bias - bias.amax(dim=-1, keepdim=True).detach()).exp()
    sums = pairs @ torch.cat([weights * v, weights], dim=-1)
    return _ratio(*sums.chunk(2, dim=-1))


def aft_local(k: Tensor, v: Tensor, row: Tensor, column: Tensor, reach: int, mask: Tensor | None = None) -> Tensor:
    """w_tj = row_t . column_j where the Chebyshev distance of t and j is below reach, 0 elsewhere: all keys count.

    Args:
        k, v: [B, *grid, D].
        row, column: [F, *grid].
        mask: [B, *grid] bool, True where a key is real.
    Returns:
        [B, *grid, D].
    """
    grid = k.shape[1:-1]
    weights = _exponentials(k.flatten(1, -2), None if mask is None else mask.flatten(1)).view(k.shape)
    both = torch.cat([weights * v, weights], dim=-1)
    sums = both.flatten(1, -2).sum(1).view(len(both), *[1] * len(grid), both.shape[-1])
    around = [reach - 1] * 2 * len(grid)
    columns, both = F.pad(column, around), F.pad(both, (0, 0, *around))  # keys of 0 beyond the edge add nothing
    for offset in product(range(2 * reach - 1), repeat=len(grid)):
        places = tuple(slice(first, first + extent) for first, extent in zip(offset, grid, strict=True))
        there = (slice(None), *places)
        sums = sums + torch.expm1((row * columns[there]).sum(0))[..., None] * both[there]
    return _ratio(*sums.chunk(2, dim=-1))


def aft_conv(k: Tensor, v: Tensor, kernel: Tensor, mask: Tensor | None = None) -> Tensor:
    """w a kernel of each head, over relative positions; 0 outside it, where keys count as well.

    Args:
        k: [B, *grid, D], or [B, *grid, heads]: one key channel for all of a head.
        v: [B, *grid, D].
        kernel: [heads, s, ..], s odd; kernel[h, s // 2 + o] is w for a key at t + o.
        mask: [B, *grid] bool, True where a key is real.
    Returns:
        [B, *grid, D].
    """
    grid, heads = v.shape[1:-1], len(kernel)
    weights = _exponentials(k.flatten(1, -2), None if mask is None else mask.flatten(1)).view(k.shape)
    spread = weights.repeat_interleave(v.shape[-1] // k.shape[-1], dim=-1)

    def gathered(maps: Tensor) -> Tensor:
        """sum_j exp(w_tj) maps_j: what the kernel adds to 1, and the sum of all."""
        maps = maps.movedim(-1, 1)
        filters = torch.expm1(kernel).repeat_interleave(maps.shape[1] // heads, dim=0)[:, None]
        near = _CONVOLUTIONS[len(grid)](maps, filters, padding=kernel.shape[-1] // 2, groups=maps.shape[1])
        return (near + maps.sum(tuple(range(2, maps.dim())), keepdim=True)).movedim(1, -1)

    totals = gathered(weights).repeat_interleave(v.shape[-1] // k.shape[-1], dim=-1)
    return _ratio(gathered(spread * v), totals)


def _exponentials(k: Tensor, mask: Tensor | None) -> Tensor:
    """exp(k - its largest real key, by channel) of [B, M, D]; 0 where a key is not real."""
    if mask is None:
        return (k - k.amax(dim=1, keepdim=True).detach()).exp()
    hidden = ~mask[..., None]
    k = k.masked_fill(hidden, torch.finfo(k.dtype).min)
    return (k - k.amax(dim=1, keepdim=True).detach()).exp().masked_fill(hidden, 0.0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 where there is no real key: the numerator is 0 there too."""
    return numerator / denominator.masked_fill(denominator == 0, 1.0)
