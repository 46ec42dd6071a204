"""Full attention in structured pieces (Ren et al., Combiner, NeurIPS 2021, arXiv 2107.05768, section 4).

A query sees some tokens directly. The others lie in spans; of a span it sees one summary, whose key and query are what
is pooled from the span's keys and queries, and whose value is what the pooled query sees of the span:

    out_i = sum_j P(j | i) v_j + sum_r P(span r | i) sum_{j in span r} P(j | span r) v_j

with one softmax over direct tokens and spans. All softmaxes and means run in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.axial import crossing_lines
from visionattn.ops.block_attention import Blocks, Source, all_pairs, gathered, joint_attention
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.sparse_patterns import block_pairs
from visionattn.typing import Grid


def combiner_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Blocks,
    mask: Tensor | None = None,
    *,
    mean_summaries: bool = False,
    count_own_once: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Fixed segments: a query sees its own directly, and a summary of every segment.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        segments: every token in one block, which it sees whole.
        mask: [B, N] bool, True where a token is real; a query that sees none answers 0.
        mean_summaries: a span's mean query and key stand for it; False: the largest number of every channel.
        count_own_once: without the summary of the query's own segment, which it sees directly.
        dropout: of the weights.
    Returns:
        [B, heads, N, E].
    """
    own, number = _segment_of(segments)
    sees = own != number if count_own_once else torch.ones_like(own != number)
    return _combined(q, k, v, segments, sees, mask, mean_summaries, dropout)


def causal_combiner_attention(q: Tensor, k: Tensor, v: Tensor, segment: int, *, mean_summaries: bool = False) -> Tensor:
    """Fixed segments, causal: a token sees its segment up to itself, and the summaries of the segments before it.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        segment: its number of tokens, 1 or more; about the root of N costs least.
        mean_summaries: as in `combiner_attention`.
    Returns:
        [B, heads, N, E].
    Raises:
        ValueError: segment is below 1.
    """
    if segment < 1:
        raise ValueError(f"segment={segment} must be 1 or more; about the root of the number of tokens costs least")
    segments = block_pairs(q.shape[2], segment, causal=True, device=q.device)
    own, number = _segment_of(segments)
    return _combined(q, k, v, segments, own > number, None, mean_summaries, 0.0)


def axial_combiner_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """A query sees its row and column directly, and of every other column a summary of what is above and of what is
    below its row: every token once. Mean queries and keys stand for a span.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        grid: (H, W) with the product N.
        mask: [B, N] bool, True where a token is real; a query that sees none answers 0.
        dropout: of the weights.
    Returns:
        [B, heads, N, E].
    """
    with without_autocast(q.device):
        column, rest_of_row = crossing_lines(grid, q.device)
        sources = [Source(column, k, v, mask), Source(rest_of_row, k, v, mask)]
        row = torch.arange(grid[0], device=q.device)
        for beyond in (row[:, None] > row, row[:, None] < row):
            sources.append(Source(rest_of_row, *_column_summaries(q, k, v, grid, beyond, mask)))
        return joint_attention(q, sources, dropout)


def _combined(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Blocks,
    sees: Tensor,
    mask: Tensor | None,
    mean_summaries: bool,
    dropout: float,
) -> Tensor:
    """sees: [N, G] bool, whether a token sees the summary of a segment."""
    with without_autocast(q.device):
        real = segments.seen.any(dim=1)[None, None]  # [1 or B, 1, G, S]
        if mask is not None:
            real = real & gathered(mask, segments.keys, dim=1)[:, None]
        queries, keys, values = (at_least_float32(gathered(t, segments.keys)) for t in (q, k, v))
        hidden, some = ~real.unsqueeze(-1), real.any(dim=-1)
        pooled_q, pooled_k = (_pooled(t, hidden, mean_summaries) for t in (queries, keys))  # [B, heads, G, D]
        logits = (pooled_q * q.shape[-1] ** -0.5).unsqueeze(-2) @ keys.mT
        shares = _softmax(logits.squeeze(-2), real)
        summary = (shares.unsqueeze(-2) @ values).squeeze(-2)
        sources = [
            Source(segments, k, v, mask),
            Source(all_pairs(sees), pooled_k.to(k.dtype), summary.to(v.dtype), some[:, 0].expand(len(q), -1)),
        ]
        return joint_attention(q, sources, dropout)


def _segment_of(segments: Blocks) -> tuple[Tensor, Tensor]:
    """The segment of every query as [N, 1], and the segments [G]."""
    number = torch.arange(segments.queries.shape[0], device=segments.slots.device)
    # Not slots // T: a divisor that is a symbolic number has no ONNX form.
    own = number[:, None].expand(-1, segments.queries.shape[1]).flatten().index_select(0, segments.slots)
    return own[:, None], number


def _pooled(tokens: Tensor, hidden: Tensor, mean: bool) -> Tensor:
    """The mean, or the largest of every channel, over the second last axis; 0 where all are hidden."""
    if mean:
        return tokens.masked_fill(hidden, 0.0).sum(dim=-2) / (~hidden).sum(dim=-2).clamp(min=1)
    largest = tokens.masked_fill(hidden, -torch.inf).amax(dim=-2)
    return largest.masked_fill(hidden.all(dim=-2), 0.0)


def _softmax(logits: Tensor, real: Tensor) -> Tensor:
    """Over the last axis; 0 for what is not real."""
    return logits.masked_fill(~real, torch.finfo(logits.dtype).min).softmax(dim=-1).masked_fill(~real, 0.0)


def _column_summaries(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, beyond: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """For every position a key, a value, and whether there is any, of the span of its column that is `beyond` it.

    Args:
        beyond: [H, H] bool, whether the second row belongs to the span of the first.
    Returns:
        [B, heads, N, D], [B, heads, N, E] and [B, N] bool.
    """

    def columns(t: Tensor) -> Tensor:
        return t.reshape(*t.shape[:2], *grid, t.shape[-1]).transpose(2, 3)  # [B, heads, W, H, D]

    def positions(t: Tensor) -> Tensor:
        return t.transpose(2, 3).flatten(2, 3)

    real = beyond
    if mask is not None:
        real = real & mask.reshape(-1, *grid).mT[:, None, :, None, :]  # [B, 1, W, H, H]
    queries, keys, values = (at_least_float32(columns(t)) for t in (q, k, v))
    count = real.sum(dim=-1, keepdim=True)
    means = real.to(keys.dtype) / count.clamp(min=1)
    logits = (means @ queries * q.shape[-1] ** -0.5) @ keys.mT
    summary = _softmax(logits, real) @ values
    some = (count > 0).expand(len(q), 1, grid[1], grid[0], 1)
    return positions(means @ keys).to(k.dtype), positions(summary).to(v.dtype), positions(some)[:, 0, :, 0]
