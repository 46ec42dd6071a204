"""Softmax attention in gathered blocks: each block of queries sees its own few keys, and no N x N table is made.

A pattern of pairs is one part or several. Each part cuts all queries into blocks; the softmax of a query runs over what
it sees in all of them, so parts must not share a pair. Parts may have keys and values of their own (`Source`), such as
summaries of the others.

Letters: G blocks, T queries and S keys of a block, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


@dataclass(frozen=True)
class Blocks:
    """One part of a pattern.

    Attributes:
        queries: [G, T], the tokens of each block; any token where there is padding.
        keys: [G, S], the tokens that it gathers; any token where there is none to see.
        seen: [G, T, S] bool, what is a pair.
        slots: [N], the place of each query in [G, T].
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    slots: Tensor


def blocks(queries: Tensor, keys: Tensor, seen: Tensor, tokens: int) -> Blocks:
    """A part from its tokens.

    Args:
        queries: [G, T]; every token once, padding below 0 or from `tokens` on.
        keys: [G, S]; padding likewise, never seen.
        seen: [G, T, S] bool.
        tokens: N.
    """
    outside = (queries < 0) | (queries >= tokens)
    places = torch.arange(queries.numel(), device=queries.device)
    slots = torch.zeros(tokens + 1, dtype=torch.long, device=queries.device)
    slots = slots.scatter(0, torch.where(outside, tokens, queries).flatten(), places)  # the last takes the padding
    real = (keys >= 0) & (keys < tokens)
    return Blocks(
        queries=queries.clamp(min=0, max=tokens - 1),
        keys=keys.clamp(min=0, max=tokens - 1),
        seen=seen & real[:, None, :],
        slots=slots[:tokens],
    )


def all_pairs(seen: Tensor) -> Blocks:
    """One block of all queries and all keys, for keys that are few: seen [N, M] bool, what is a pair."""
    queries = torch.arange(seen.shape[0], device=seen.device)
    keys = torch.arange(seen.shape[1], device=seen.device)
    return Blocks(queries=queries[None], keys=keys[None], seen=seen[None], slots=queries)


@dataclass(frozen=True)
class Source:
    """Keys and values, and which of them a query sees.

    Attributes:
        pairs: `pairs.keys` are places in k and v.
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real.
        bias: [heads, T, S], added to the logits of every block.
    """

    pairs: Blocks
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Blocks], mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the pairs of all parts; a query that sees no real key answers 0.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        parts: one or more, without a common pair.
        mask: [B, N] bool, True where a key is real.
        dropout: of the weights.
    Returns:
        [B, heads, N, E].
    """
    return joint_attention(q, [Source(part, k, v, mask) for part in parts], dropout)


def joint_attention(q: Tensor, sources: Sequence[Source], dropout: float = 0.0) -> Tensor:
    """One softmax over the keys of all sources, logits q k^T / sqrt(D) + bias; who sees no real key answers 0.

    Args:
        q: [B, heads, N, D].
        sources: one or more.
        dropout: of the weights.
    Returns:
        [B, heads, N, E], in the dtype of the first source's values.
    """
    with without_autocast(q.device):
        q = q * q.shape[-1] ** -0.5
        summed = [_summed(q, source, dropout) for source in sources]
        largest = summed[0][2]
        for _, _, of_source in summed[1:]:
            largest = torch.maximum(largest, of_source)
        numerator, total = torch.zeros_like(summed[0][0]), torch.zeros_like(summed[0][1])
        for values, weights, of_source in summed:
            factor = (of_source - largest).exp()
            numerator, total = numerator + factor * values, total + factor * weights
        return (numerator / total.masked_fill(total == 0, 1.0)).to(sources[0].v.dtype)


def gathered(t: Tensor, index: Tensor, dim: int = 2) -> Tensor:
    """The tokens of [B, heads, N, D] in blocks, [B, heads, G, T, D]; of [B, N] with dim=1."""
    return t.index_select(dim, index.flatten()).view(*t.shape[:dim], *index.shape, *t.shape[dim + 1 :])


def _summed(q: Tensor, source: Source, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of exp(logit - largest) v [B, heads, N, E] and of exp(logit - largest) [B, heads, N, 1]; the largest."""
    pairs, seen = source.pairs, source.pairs.seen
    if source.mask is not None:
        seen = seen & gathered(source.mask, pairs.keys, dim=1)[:, None, :, None, :]
    logits = at_least_float32(gathered(q, pairs.queries) @ gathered(source.k, pairs.keys).mT)  # [B, heads, G, T, S]
    if source.bias is not None:
        logits = logits + source.bias[:, None]
    logits = logits.masked_fill(~seen, -torch.inf)
    # The least finite number where nothing is seen: exp(-inf) is then 0, and so is this source's share of the answer.
    largest = logits.detach().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    weights = (logits - largest).exp()
    values = F.dropout(weights, dropout).to(source.v.dtype) @ gathered(source.v, pairs.keys)
    total = weights.sum(dim=-1, keepdim=True)
    in_order = [t.flatten(2, 3).index_select(2, pairs.slots) for t in (at_least_float32(values), total, largest)]
    return in_order[0], in_order[1], in_order[2]
