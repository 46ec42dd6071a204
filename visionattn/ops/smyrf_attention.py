"""SMYRF: attention inside balanced clusters of an asymmetric hash (Daras et al., NeurIPS 2020, arXiv 2010.05315).

    F(q) = [q; 0; sqrt(M_q^2 + M_k^2 - |q|^2)]      G(k) = [k; sqrt(M_q^2 + M_k^2 - |k|^2); 0]

with M the largest norms, so that |F(q) - G(k)|^2 = 2 (M_q^2 + M_k^2) - 2 q . k falls where q . k grows. Queries and
keys are sorted by their place on a random line and cut into equally many clusters, of which each looks at one. What
several lines find is merged into one softmax.

Letters: R lines, G clusters of at most T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.hashing_rounds import attended_groups, merged_rounds, places_for, ranks, taken
from visionattn.ops.precision import at_least_float32, without_autocast


def smyrf_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lines: Tensor,
    cluster_size: int,
    mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T) v inside clusters.

    The longer of the two sides is cut into clusters of at most `cluster_size`, the other into as many; those of a side
    differ by one token at most, and none is left out. If there are fewer keys than clusters, some share a key.

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        lines: N(0, 1), [D + 2, R].
        cluster_size: T; more than there are tokens is as many, in memory too.
        mask: [B, M] bool, True where a key is real; clusters are of real tokens.
        query_mask: [B, N] bool, True where a query is real; the answers to others mean nothing.
        scale: of the logits, after the hash; 1 / sqrt(D) if None.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(q.device):
        real_queries, real_keys = (
            torch.ones(1, t.shape[2], dtype=torch.bool, device=q.device) if real is None else real
            for t, real in ((q, query_mask), (k, mask))
        )
        on_lines = places_on_lines(q, k, lines, real_queries, real_keys)
        # Not asked to be stable, which has no ONNX form: tokens at one place are alike.
        query_order, key_order = (t.argsort(dim=-1) for t in on_lines)  # [B, heads, R, N or M]
        query_count, key_count = (real.sum(dim=1)[:, None] for real in (real_queries, real_keys))
        clusters = (torch.sym_max(q.shape[2], k.shape[2]) + cluster_size - 1) // cluster_size
        # Of real tokens alone, [B, 1]: at most as many.
        used = ((torch.maximum(query_count, key_count) + cluster_size - 1) // cluster_size).clamp(min=1)

        numbers = torch.arange(clusters, device=q.device)[None]
        # A cluster has no more places for a side than the side has tokens.
        query_places, key_places = (places_for(cluster_size, t.shape[2]) for t in (q, k))
        query_starts, key_starts = (numbers * count // used for count in (query_count, key_count))  # [B, G]
        key_ends = torch.maximum((numbers + 1) * key_count // used, key_starts + 1)
        of_queries, of_keys = (
            starts[..., None] + torch.arange(places, device=q.device)
            for starts, places in ((query_starts, query_places), (key_starts, key_places))
        )  # [B, G, T]
        is_key = of_keys < torch.minimum(key_ends, key_count)[..., None]

        scale = q.shape[-1] ** -0.5 if scale is None else scale
        queries = taken(q * scale, _members(query_order, of_queries))  # [B, heads, R, G, T, D]
        members = _members(key_order, of_keys)
        logits = at_least_float32(queries @ taken(k, members).mT)
        logits = logits.masked_fill(~is_key[:, None, None, :, None, :], -torch.inf)
        values, log_sums = attended_groups(logits, taken(v, members))

        rank = ranks(query_order)
        count, used = query_count.clamp(min=1)[:, None, None], used[:, None, None]
        cluster = ((rank + 1) * used - 1) // count
        place = cluster * query_places + rank - cluster * count // used
        lines_before = torch.arange(lines.shape[1], device=q.device)[:, None] * (clusters * query_places)
        place = place.clamp(max=clusters * query_places - 1) + lines_before
        return merged_rounds(values.flatten(2, 4), log_sums.flatten(2), place).to(v.dtype)


def places_on_lines(
    q: Tensor, k: Tensor, lines: Tensor, real_queries: Tensor, real_keys: Tensor
) -> tuple[Tensor, Tensor]:
    """F(q) . line [B, heads, R, N] and G(k) . line [B, heads, R, M]; inf where a token is not real.

    The published code adds a random offset to all; it moves none past another.
    """
    width = q.shape[-1]
    q, k = at_least_float32(q.detach()), at_least_float32(k.detach())
    lines = lines.to(q.dtype)
    squares = [t.square().sum(-1) for t in (q, k)]  # [B, heads, N], [B, heads, M]
    reals = [real[:, None] for real in (real_queries, real_keys)]
    largest = sum(
        square.masked_fill(~real, 0.0).amax(-1, keepdim=True) for square, real in zip(squares, reals, strict=True)
    )
    places = []
    for t, square, real, extra in zip((q, k), squares, reals, (lines[width + 1], lines[width]), strict=True):
        rest = (largest - square).clamp(min=0).sqrt()
        along = (t @ lines[:width] + rest[..., None] * extra).transpose(2, 3)
        places.append(along.masked_fill(~real[:, None], torch.inf))
    return places[0], places[1]


def _members(order: Tensor, standing: Tensor) -> Tensor:
    """The tokens at places [B or 1, G, T] of an order [B, heads, R, N], [B, heads, R, G, T]."""
    index = standing.clamp(max=order.shape[-1] - 1).flatten(1)[:, None, None]
    found = order.gather(-1, index.expand(*order.shape[:3], -1))
    return found.view(*order.shape[:3], *standing.shape[1:])
