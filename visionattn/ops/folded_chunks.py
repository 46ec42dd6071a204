"""Folded efficient attention in two walks over the tokens of a map, in chunks that stay in cache; forward only.

A map is a view [C, N] of either memory order. The rows of a chunk of a channels-first map lie N elements apart, which
costs matrix products a factor of three when N is a power of two: the chunk is copied into a scratch of cache size, and
answers are written from one. A chunk of a channels-last map, or one that is the whole map, is dense and used where it
lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.folded_whole_map import Options, Weights, is_safe, mixing_of

_CHUNK_BYTES = 2**21


def forward_in_chunks(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """residual + scale * proj(efficient attention of qkv(x)); shapes as of `folded_efficient_attention`."""
    heads, dim, temperature, adds_x = options
    query, key = weights.qkv[:dim], weights.qkv[dim : 2 * dim].t().contiguous()
    bias = x.new_zeros(dim) if weights.qkv_bias is None else weights.qkv_bias[:dim]
    if temperature != 1.0:
        query, bias, key = query / temperature, bias / temperature, key / temperature
    out = torch.empty_like(x)
    for b in range(len(x)):
        image = x[b].t()
        _, mixing = mixing_of(_weigh_inputs(image, key)[None], weights, heads)
        mixing = mixing[0] if scale is None else mixing[0] * scale[:, None]
        target, plus = out[b].t(), image if adds_x else None if residual is None else residual[b].t()
        if not is_safe(_mix(image, query, bias, mixing, heads, plus, target, subtract_maximum=False)):
            _mix(image, query, bias, mixing, heads, plus, target, subtract_maximum=True)
    return out


def _weigh_inputs(x: Tensor, key_weight: Tensor) -> Tensor:
    """X P^T [C, D] of x [C, N], where P = softmax over tokens of key_weight^T X; key_weight [C, D]."""
    sums, totals = _accumulate(x, key_weight, None)
    if not is_safe(totals):
        sums, totals = _accumulate(x, key_weight, _largest_keys(x, key_weight))
    return sums.div_(totals)


def _accumulate(x: Tensor, key_weight: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """X E^T [C, D] and the row sums [D] of E = exp(K - shift)."""
    dim = key_weight.shape[1]
    length = _chunk_length(x, dim)
    scratch, buffer = _scratch_for(x, length), x.new_empty(length, dim)
    sums, totals = torch.zeros_like(key_weight), x.new_zeros(dim)
    for chunk in torch.split(x, length, 1):
        # Keys lie token by token whatever the order of x: then both products run at full speed.
        keys, chunk = buffer[: chunk.shape[1]], _in_cache(chunk, scratch)
        torch.mm(chunk.t(), key_weight, out=keys)
        if shift is not None:
            keys.sub_(shift)
        totals += keys.exp_().sum(0)
        sums.addmm_(chunk, keys)
    return sums, totals


def _largest_keys(x: Tensor, key_weight: Tensor) -> Tensor:
    length = _chunk_length(x, key_weight.shape[1])
    scratch = _scratch_for(x, length)
    largest = [torch.mm(_in_cache(chunk, scratch).t(), key_weight).amax(0) for chunk in torch.split(x, length, 1)]
    return torch.stack(largest).amax(0)  # [D]


def _mix(
    x: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    mixing: Tensor,
    heads: int,
    residual: Tensor | None,
    out: Tensor,
    *,
    subtract_maximum: bool,
) -> Tensor:
    """Writes out = mixing R + residual, R the softmax over each head's channels of query_weight x + query_bias.

    Args:
        x, residual, out: [C, N]; the residual may be x itself, or None.
        query_weight, query_bias: [D, C] and [D].
        mixing: [C, D].
    Returns:
        The sums of exponentials, [heads, 1, N].
    """
    dim = len(query_weight)
    length = _chunk_length(x, dim)
    scratch, out_scratch, buffer = _scratch_for(x, length), _scratch_for(out, length), x.new_empty(dim * length)
    totals = x.new_empty(heads, 1, x.shape[1])
    walk = zip(
        torch.split(x, length, 1),
        torch.split(x if residual is None else residual, length, 1),
        torch.split(out, length, 1),
        torch.split(totals, length, 2),
        strict=True,
    )
    for chunk, added, target, total in walk:
        n, cached = chunk.shape[1], _in_cache(chunk, scratch)
        weights = torch.addmm(query_bias[:, None], query_weight, cached, out=_rows(buffer, dim, n))
        by_head = weights.view(heads, -1, n)
        if subtract_maximum:
            by_head.sub_(by_head.amax(1, keepdim=True))
        torch.sum(by_head.exp_(), 1, keepdim=True, out=total)
        by_head.mul_(total.reciprocal())
        y = torch.mm(mixing, weights, out=target if out_scratch is None else out_scratch[:, :n])
        if residual is not None:
            torch.add(cached if residual is x else added, y, out=target)
        elif out_scratch is not None:
            target.copy_(y)
    return totals


def _chunk_length(x: Tensor, key_dim: int) -> int:
    """Tokens per chunk of a map [C, N]: chunks of equal length whose working set fits the second-level cache.

    With several threads each has its own cache and takes its share of every matrix product.
    """
    channels, tokens = x.shape
    fitting = _CHUNK_BYTES * torch.get_num_threads() // ((channels + key_dim) * 2 * x.element_size())
    chunks = -(-tokens // max(fitting, 64))
    return -(-tokens // chunks)


def _scratch_for(x: Tensor, length: int) -> Tensor | None:
    """An empty chunk [C, length] if those of the map x [C, N] must be copied; None if they are dense where they lie."""
    channels, tokens = x.shape
    rows_are_tokens = x.stride(0) == 1 and x.stride(1) >= channels
    dense = rows_are_tokens or (length == tokens and x.is_contiguous())
    return None if dense else x.new_empty(channels, length)


def _in_cache(chunk: Tensor, scratch: Tensor | None) -> Tensor:
    """The chunk [C, n] where matrix products read it fast: where it lies, or copied into the scratch."""
    return chunk if scratch is None else scratch[:, : chunk.shape[1]].copy_(chunk)


def _rows(buffer: Tensor, rows: int, columns: int) -> Tensor:
    return buffer[: rows * columns].view(rows, columns)
