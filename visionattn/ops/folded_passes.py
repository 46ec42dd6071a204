"""The walks over the tokens of one map that folded efficient attention is made of, in chunks that stay in cache.

A map is a view [C, N] of either memory order. The rows of a chunk of a channels-first map lie N elements apart, which
costs matrix products a factor of three when N is a power of two: the chunk is copied into a scratch of cache size, and
answers are written from one. A chunk of a channels-last map, or one that is the whole map, is dense and used where it
lies.

Exponentials are taken without subtracting a maximum first and judged by their sums: a sum within `_SAFE` proves that
nothing overflowed and that what vanished is below rounding. Where a sum is outside, the walk is made again with the
maximum subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SAFE = (1e-20, 1e20)
_CHUNK_BYTES = 2**21


def chunk_length(x: Tensor, key_dim: int) -> int:
    """Tokens per chunk of a map [C, N]: chunks of equal length whose working set fits the second-level cache.

    With several threads each has its own cache and takes its share of every matrix product.
    """
    channels, tokens = x.shape
    fitting = _CHUNK_BYTES * torch.get_num_threads() // ((channels + key_dim) * 2 * x.element_size())
    chunks = -(-tokens // max(fitting, 64))
    return -(-tokens // chunks)


def scratch_for(x: Tensor, length: int) -> Tensor | None:
    """An empty chunk [C, length] if those of the map x [C, N] must be copied; None if they are dense where they lie."""
    channels, tokens = x.shape
    rows_are_tokens = x.stride(0) == 1 and x.stride(1) >= channels
    dense = rows_are_tokens or (length == tokens and x.is_contiguous())
    return None if dense else x.new_empty(channels, length)


def in_cache(chunk: Tensor, scratch: Tensor | None) -> Tensor:
    """The chunk [C, n] where matrix products read it fast: where it lies, or copied into the scratch."""
    return chunk if scratch is None else scratch[:, : chunk.shape[1]].copy_(chunk)


def storage(x: Tensor, dim: int, length: int, kept: Tensor | None) -> Sequence[Tensor]:
    """For each chunk of n tokens, room for n * dim numbers: in `kept` [N * dim], or one after another in one buffer."""
    if kept is not None:
        return torch.split(kept, dim * length)
    tokens = x.shape[1]
    buffer = x.new_empty(dim * length)
    rest = tokens % length
    return [buffer] * (tokens // length) + ([buffer[: dim * rest]] if rest else [])


def weigh_inputs(x: Tensor, key_weight: Tensor, length: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """X E^T [C, D] and the row sums E 1 [D], where E = exp(K - shift) and K = key_weight^T X.

    Args:
        x: [C, N].
        key_weight: [C, D], divided by the temperature; a bias would cancel.
        length: of a chunk.
        kept: [N * D] for E, chunk by chunk as [n, D]; None if nothing needs them later.
    """
    sums, totals = _accumulate(x, key_weight, length, kept, None)
    if not _is_safe(totals):
        sums, totals = _accumulate(x, key_weight, length, kept, _largest_keys(x, key_weight, length))
    return sums, totals


def mix_inputs(
    x: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    mixing: Tensor,
    heads: int,
    length: int,
    residual: Tensor | None,
    out: Tensor,
    kept: Tensor | None,
) -> None:
    """Writes out = mixing R + residual, where R = softmax over each head's channels of query_weight X + query_bias.

    Args:
        x: [C, N].
        query_weight, query_bias: [D, C] and [D], divided by the temperature.
        mixing: [C, D].
        heads: of the softmax.
        length: of a chunk.
        residual: [C, N], which may be x, or None.
        out: [C, N], written.
        kept: [D * N] for R, chunk by chunk as [D, n]; None if nothing needs them later.
    """
    arguments = (x, query_weight, query_bias, mixing, heads, length, residual, out, kept)
    if not _is_safe(_mix(*arguments, subtract_maximum=False)):
        _mix(*arguments, subtract_maximum=True)


def write(y: Tensor, residual: Tensor | None, out: Tensor) -> None:
    """out = y + residual, where y may be out already."""
    if residual is not None:
        torch.add(residual, y, out=out)
    elif y is not out:
        out.copy_(y)


def _accumulate(
    x: Tensor, key_weight: Tensor, length: int, kept: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    dim = key_weight.shape[1]
    scratch = scratch_for(x, length)
    sums, totals = torch.zeros_like(key_weight), x.new_zeros(dim)
    for chunk, store in zip(torch.split(x, length, 1), storage(x, dim, length, kept), strict=True):
        # Keys lie token by token whatever the order of x: then both products run at full speed.
        keys, chunk = store.view(-1, dim), in_cache(chunk, scratch)
        torch.mm(chunk.t(), key_weight, out=keys)
        if shift is not None:
            keys.sub_(shift)
        totals += keys.exp_().sum(0)
        sums.addmm_(chunk, keys)
    return sums, totals


def _largest_keys(x: Tensor, key_weight: Tensor, length: int) -> Tensor:
    scratch = scratch_for(x, length)
    largest = [torch.mm(in_cache(chunk, scratch).t(), key_weight).amax(0) for chunk in torch.split(x, length, 1)]
    return torch.stack(largest).amax(0)  # [D]


def _mix(
    x: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    mixing: Tensor,
    heads: int,
    length: int,
    residual: Tensor | None,
    out: Tensor,
    kept: Tensor | None,
    *,
    subtract_maximum: bool,
) -> Tensor:
    """`mix_inputs` with or without a maximum; returns the sums of exponentials, [heads, 1, N]."""
    dim = len(query_weight)
    scratch, out_scratch = scratch_for(x, length), scratch_for(out, length)
    totals = x.new_empty(heads, 1, x.shape[1])
    walk = zip(
        torch.split(x, length, 1),
        torch.split(x, length, 1) if residual is None else torch.split(residual, length, 1),
        torch.split(out, length, 1),
        torch.split(totals, length, 2),
        storage(x, dim, length, kept),
        strict=True,
    )
    for chunk, added, target, total, store in walk:
        weights, in_scratch = store.view(dim, -1), in_cache(chunk, scratch)
        torch.addmm(query_bias[:, None], query_weight, in_scratch, out=weights)
        by_head = weights.view(heads, dim // heads, -1)
        if subtract_maximum:
            by_head.sub_(by_head.amax(1, keepdim=True))
        torch.sum(by_head.exp_(), 1, keepdim=True, out=total)
        by_head.mul_(total.reciprocal())  # half the time of dividing the wide tensor
        y = torch.mm(mixing, weights, out=target if out_scratch is None else out_scratch[:, : target.shape[1]])
        write(y, None if residual is None else in_scratch if residual is x else added, target)
    return totals


def _is_safe(totals: Tensor) -> bool:
    low, high = torch.aminmax(totals)
    return bool(_SAFE[0] < low.item() and high.item() < _SAFE[1])
