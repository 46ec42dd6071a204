"""Folded efficient attention in two walks over the tokens of a map, in chunks that stay in cache; forward only.

A map is a view [C, N] of either memory order. The rows of a chunk of a channels-first map lie N elements apart, each on
a page of its own. Up to 128 of them are read and written where they lie; more are slower than a copy in a scratch of
cache size (measured for 32 to 256 channels). A chunk of a channels-last map, or one that is the whole map, is dense.

The bias of the queries is left out of their exponentials, exp(w x + b) = exp(b) exp(w x): their sums are weighted by
exp(b), one product of matrices for all heads, and so is what the answers are mixed with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from visionattn.ops.folded_mixing import Mixing, Options, Weights, scaled
from visionattn.ops.folded_whole_map import is_safe

_CHUNK_BYTES = 2**21
_ROWS_IN_PLACE = 128
_LARGEST_BIAS = 32.0
"""Beyond 40, exp(w x) may have vanished in a sum of exp(w x + b) that looks safe: then the bias is added."""


def forward_in_chunks(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """residual + scale * proj(efficient attention of qkv(x)); shapes as of `folded_efficient_attention`."""
    heads, dim, temperature, adds_x = options
    query, key = weights.qkv[:dim], weights.qkv[dim : 2 * dim].t().contiguous()
    bias = x.new_zeros(dim) if weights.qkv_bias is None else weights.qkv_bias[:dim]
    if temperature != 1.0:
        query, bias, key = query / temperature, bias / temperature, key / temperature
    plain, factors, out = bias.abs().amax().item() <= _LARGEST_BIAS, bias.exp(), torch.empty_like(x)
    for b in range(len(x)):
        image = x[b].t()
        mixing = scaled(Mixing.of(_weigh_inputs(image, key)[None], weights, heads).matrix, scale)[0]
        target, plus = out[b].t(), image if adds_x else None if residual is None else residual[b].t()
        if not (plain and is_safe(_mix(image, query, factors, mixing, heads, plus, target))):
            _mix_shifted(image, query, bias, mixing, heads, plus, target)
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
    x: Tensor, query_weight: Tensor, factors: Tensor, mixing: Tensor, heads: int, residual: Tensor | None, out: Tensor
) -> Tensor:
    """Writes out = mixing R + residual, R the softmax over each head's channels of query_weight x + log(factors).

    Args:
        x, residual, out: [C, N]; the residual may be x itself, or None.
        query_weight, factors: [D, C] and [D].
        mixing: [C, D].
    Returns:
        The sums of exponentials, [heads, N].
    """
    own = torch.eye(heads, dtype=x.dtype, device=x.device).repeat_interleave(len(factors) // heads, 1)  # [heads, D]
    summing = own * factors
    totals = x.new_empty(heads, x.shape[1])

    def attend(chunk: Tensor, start: int, weights: Tensor) -> None:
        torch.mm(query_weight, chunk, out=weights).exp_()
        total = torch.mm(summing, weights, out=totals[:, start : start + chunk.shape[1]])
        _heads_of(weights, heads).mul_(total.reciprocal().unsqueeze(1))

    _write(x, attend, mixing * factors, residual, out)
    return totals


def _mix_shifted(
    x: Tensor,
    query_weight: Tensor,
    bias: Tensor,
    mixing: Tensor,
    heads: int,
    residual: Tensor | None,
    out: Tensor,
) -> None:
    """As `_mix` for any values: the bias is added, and the maximum over each head's channels subtracted."""

    def attend(chunk: Tensor, start: int, weights: Tensor) -> None:
        by_head = _heads_of(torch.addmm(bias[:, None], query_weight, chunk, out=weights), heads)
        by_head.sub_(by_head.amax(1, keepdim=True))
        by_head.mul_(by_head.exp_().sum(1, keepdim=True).reciprocal_())

    _write(x, attend, mixing, residual, out)


def _write(
    x: Tensor, attend: Callable[[Tensor, int, Tensor], None], mixing: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    """Writes out [C, N] = mixing [C, D] R + residual, where attend(chunk of x, its start, R [D, n]) makes R."""
    dim, length = mixing.shape[1], _chunk_length(x, mixing.shape[1])
    scratch, out_scratch, buffer = _scratch_for(x, length), _scratch_for(out, length), x.new_empty(dim * length)
    for start in range(0, x.shape[1], length):
        n = min(length, x.shape[1] - start)
        chunk, target = x.narrow(1, start, n), out.narrow(1, start, n)
        added = None if residual is None else residual.narrow(1, start, n)
        cached, weights = _in_cache(chunk, scratch), buffer[: dim * n].view(dim, n)
        attend(cached, start, weights)
        if out_scratch is not None:
            y = torch.mm(mixing, weights, out=out_scratch[:, :n])
            if added is None:
                target.copy_(y)
            else:
                torch.add(cached if residual is x else added, y, out=target)
        elif added is None:
            torch.mm(mixing, weights, out=target)
        else:
            torch.addmm(added, mixing, weights, out=target)


def _chunk_length(x: Tensor, key_dim: int) -> int:
    """Tokens per chunk of a map [C, N]: chunks of equal length whose working set fits the second-level cache.

    With several threads each has its own cache and takes its share of every matrix product.
    """
    channels, tokens = x.shape
    fitting = _CHUNK_BYTES * torch.get_num_threads() // ((channels + key_dim) * 2 * x.element_size())
    chunks = -(-tokens // max(fitting, 64))
    return -(-tokens // chunks)


def _scratch_for(x: Tensor, length: int) -> Tensor | None:
    """An empty chunk [C, length] if those of the map x [C, N] are copied; None if they are used where they lie."""
    channels, tokens = x.shape
    rows_are_tokens = x.stride(0) == 1 and x.stride(1) >= channels
    dense = rows_are_tokens or (length == tokens and x.is_contiguous())
    in_place = dense or (x.stride(1) == 1 and channels <= _ROWS_IN_PLACE)
    return None if in_place else x.new_empty(channels, length)


def _in_cache(chunk: Tensor, scratch: Tensor | None) -> Tensor:
    """The chunk [C, n] where matrix products read it fast: where it lies, or copied into the scratch."""
    return chunk if scratch is None else scratch[:, : chunk.shape[1]].copy_(chunk)


def _heads_of(rows: Tensor, heads: int) -> Tensor:
    """[heads * d, n] as the view [heads, d, n]."""
    return rows.view(heads, -1, rows.shape[1])
