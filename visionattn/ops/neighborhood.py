"""Neighbourhoods of the tokens of a grid as blocks (ops/block_attention.py): tiles of queries and the keys around them.

Along every axis a query sees a run of keys, `dilation` apart. Tiles are as wide as that run, so a tile of t queries
gathers 2 t - 1 keys along the axis, or the whole axis where it is no longer. With a dilation, each of the interleaved
grids is cut by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.ops.block_attention import Blocks, block_attention, blocks
from visionattn.typing import Grid


def neighborhood_blocks(grid: Grid, kernel: int, dilation: int, device: torch.device | None = None) -> Blocks:
    """The `kernel` nearest of every axis: at an edge the neighbourhood moves inwards and keeps its size.

    Args:
        grid: one to three extents.
        kernel: odd; an axis that is shorter is seen whole.
        dilation: steps between neighbours.
    """
    return _product(grid, [_axis(extent, kernel, dilation, True, device) for extent in grid], math.inf, 0)


def local_blocks(grid: Grid, radius: int, dilation: int, norm: float, device: torch.device | None = None) -> Blocks:
    """Those no farther than `radius`: at an edge the neighbourhood is cut off.

    Args:
        grid: one to three extents.
        radius: in steps of `dilation`.
        dilation: steps between neighbours.
        norm: order of the distance: inf a square (Chebyshev), 2 a disc, 1 a diamond.
    """
    return _product(grid, [_axis(extent, 2 * radius + 1, dilation, False, device) for extent in grid], norm, radius)


def causal_ngram_attention(q: Tensor, k: Tensor, v: Tensor, order: int) -> Tensor:
    """N-gram masked attention (Chelba et al., 2020, arXiv 2001.04589): a token sees itself and the order - 1 before it.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        order: 1 or more.
    Returns:
        [B, heads, N, E].
    Raises:
        ValueError: order is below 1.
    """
    if order < 1:
        raise ValueError(f"order={order} must be 1 or more; with 1 a token sees itself alone")
    return block_attention(q, k, v, [ngram_blocks(q.shape[2], order, q.device)])


def ngram_blocks(tokens: int, order: int, device: torch.device | None = None) -> Blocks:
    """Keys from i - order + 1 to i."""
    starts = torch.arange((tokens + order - 1) // order, device=device)[:, None] * order
    queries = starts + torch.arange(order, device=device)
    keys = starts + torch.arange(1 - order, order, device=device)
    back = queries[:, :, None] - keys[:, None, :]
    return blocks(queries, keys, (back >= 0) & (back < order), tokens)


def tile_blocks(grid: Grid, tile: Sequence[int], margin: Sequence[int], device: torch.device | None = None) -> Blocks:
    """Tiles of queries, each with the keys in it and in a margin around it.

    Args:
        grid: one to three extents; the last tile of an axis may reach beyond it.
        tile: extents of a tile.
        margin: how far around a tile its keys reach, along every axis.
    """
    axes = []
    for extent, length, around in zip(grid, tile, margin, strict=True):
        starts = torch.arange((extent + length - 1) // length, device=device)[:, None] * length
        queries = starts + torch.arange(length, device=device)
        keys = starts + torch.arange(-around, length + around, device=device)
        queries, keys = (torch.where((t >= 0) & (t < extent), t, extent) for t in (queries, keys))
        axes.append((queries, keys, torch.zeros(1, length, length + 2 * around, dtype=torch.long, device=device)))
    return _product(grid, axes, math.inf, 0)


def _axis(
    extent: int, kernel: int, dilation: int, moves: bool, device: torch.device | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one axis: positions of queries [G, T] and of keys [G, S], `extent` outside; steps between them [G, T, S].

    The steps are -1 where a key is outside the run of the query.
    """
    along = (extent + dilation - 1) // dilation  # the longest of the interleaved rows
    rest = torch.arange(dilation, device=device)[:, None, None]
    # Not by a comparison, which would pin an export to its answer.
    tile: int = torch.sym_min(kernel, along)  # type: ignore[assignment]  # a SymInt
    span: int = torch.sym_min(tile + kernel - 1, along)  # type: ignore[assignment]
    starts = torch.arange((along + tile - 1) // tile, device=device)[:, None] * tile
    queries = starts + torch.arange(tile, device=device)  # [tiles, T]
    first = (queries - kernel // 2).expand(dilation, -1, -1)
    if moves:
        lengths = (extent - rest + dilation - 1) // dilation
        first = torch.minimum(first, lengths - kernel).clamp(min=0)
    keys = first[..., :1].clamp(min=0, max=along - span) + torch.arange(span, device=device)  # [dilation, tiles, S]
    after = keys[..., None, :] - first[..., None]
    inside = (after >= 0) & (after < kernel)
    steps = torch.where(inside, (keys[..., None, :] - queries[..., None]).abs(), -1)
    positions = []
    for numbers in (queries.expand(dilation, -1, -1), keys):
        places = numbers * dilation + rest
        positions.append(torch.where((numbers >= 0) & (places < extent), places, extent).flatten(0, 1))
    return positions[0], positions[1], steps.flatten(0, 1)


def _product(grid: Grid, axes: Sequence[tuple[Tensor, Tensor, Tensor]], norm: float, radius: int) -> Blocks:
    """The blocks of all axes together; seen is what is seen along every axis, within `radius` where norm is finite."""
    dims, tokens = len(grid), math.prod(grid)
    flat: list[Tensor] = []
    for which in (0, 1):
        index, real = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.bool)
        for axis, extent in enumerate(grid):
            places = axes[axis][which]
            spread = [1] * (2 * dims)
            spread[axis], spread[dims + axis] = places.shape
            places = places.view(spread)
            index = index.to(places.device) * extent + places
            real = real.to(places.device) & (places < extent)
        index = torch.where(real, index, tokens)
        flat.append(index.flatten(0, dims - 1).flatten(1))
    seen, distance = torch.ones((), dtype=torch.bool), torch.zeros(())
    for axis in range(dims):
        steps = axes[axis][2]
        spread = [1] * (3 * dims)
        spread[axis], spread[dims + axis], spread[2 * dims + axis] = steps.shape
        steps = steps.view(spread)
        seen = seen.to(steps.device) & (steps >= 0)
        if norm != math.inf:
            distance = distance.to(steps.device) + steps.double() ** norm
    if norm != math.inf:
        seen = seen & (distance <= radius**norm * (1 + 1e-9))
    seen = seen.flatten(0, dims - 1).flatten(1, dims).flatten(2)
    return blocks(flat[0], flat[1], seen, tokens)
