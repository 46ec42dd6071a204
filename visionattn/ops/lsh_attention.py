"""Reformer's attention by locality-sensitive hashing (Kitaev et al., ICLR 2020, arXiv 2001.04451).

Tokens are sorted by the bucket of a random hash, and by their number inside a bucket. Chunks of the sorted tokens see
themselves and the chunk before; the first of a round sees the last of the round before, that of the first round the
last of all. What several rounds find is merged into one softmax. Queries are keys: k = q / |q|.

Letters: R rounds, K directions of the hash (2 K buckets), G chunks of T tokens in a round.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.hashing_rounds import attended_groups, merged_rounds, places_for, ranks, taken
from visionattn.ops.precision import at_least_float32, without_autocast

_SELF = -5e4
"""The logit of a token to itself, which is thus seen where nothing else is; the reference's."""


def lsh_attention(
    qk: Tensor,
    v: Tensor,
    rotations: Tensor,
    bucket_size: int,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    across_buckets: bool = True,
    discount_repeats: bool = False,
) -> Tensor:
    """What the tokens see that share a chunk with them, or lie in the chunk before.

    Args:
        qk: queries, [B, heads, N, D].
        v: [B, heads, N, E].
        rotations: N(0, 1), [D, R, K]; ceil(N / 2 bucket_size) directions are used, all if there are fewer.
        bucket_size: T, tokens of a chunk; the last chunk of a round may have fewer. More than N is as N, in memory too.
        mask: [B, N] bool, True where a token is real; what is left is as without the others.
        causal: only tokens up to the query; later ones still move where chunks begin (`causal_lsh_attention`).
        across_buckets: tokens of other buckets are seen, if the chunks have some.
        discount_repeats: a token that is met several times counts once.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(qk.device):
        tokens, rounds = qk.shape[2], rotations.shape[1]
        chunks = (tokens + bucket_size - 1) // bucket_size
        places_of_chunk = places_for(bucket_size, tokens)
        directions = (tokens + 2 * bucket_size - 1) // (2 * bucket_size)
        buckets = hash_buckets(qk, rotations[..., :directions], _used(mask, 2 * bucket_size))
        if mask is not None:
            buckets = buckets.masked_fill(~mask[:, None, None], 2 * rotations.shape[-1])  # sorted to the end
        order = sorted_by_bucket(buckets)
        own = F.pad(order, (0, chunks * places_of_chunk - tokens), value=tokens)  # the number N: nobody
        own = own.reshape(*own.shape[:2], rounds * chunks, places_of_chunk)
        before = _chunk_before(rounds, chunks, _used(mask, bucket_size), qk.device)
        before = before[:, None].expand(*own.shape[:3])
        seen = torch.cat([own, taken(own, before)], dim=-1)  # [B, heads, R G, 2 T]

        pairs = (seen < tokens)[..., None, :]
        if mask is not None:
            real = F.pad(mask, (0, 1))[:, None, :, None].expand(-1, own.shape[1], -1, -1)
            pairs = pairs & taken(real, seen)[..., None, :, 0]
        if causal:
            pairs = pairs & (seen[..., None, :] <= own[..., :, None])
        # What tokens must share to see each other: in every round its own numbers, or nothing.
        labels = buckets + _round_numbers(buckets) * (2 * rotations.shape[-1] + 1)
        if across_buckets:
            labels = torch.zeros_like(labels)
        else:
            of_own = F.pad(labels.gather(-1, order), (0, chunks * places_of_chunk - tokens), value=-1).view_as(own)
            of_seen = torch.cat([of_own, taken(of_own, before)], dim=-1)
            pairs = pairs & (of_own[..., :, None] == of_seen[..., None, :])
        standing = ranks(order)
        times: Tensor | None = None
        if discount_repeats:
            chunk = _round_numbers(order) * chunks + standing // bucket_size
            chunk_before = before.gather(2, chunk.flatten(2)).view_as(chunk)
            labels = labels * (rounds * chunks)
            times = _meetings(labels + chunk, labels + chunk_before, own, seen)
        places = _round_numbers(order) * (chunks * places_of_chunk) + standing
        return _merged(qk, v, own, seen, pairs, places, times)


def causal_lsh_attention(qk: Tensor, v: Tensor, rotations: Tensor, bucket_size: int) -> Tensor:
    """As `lsh_attention`, and no later token has a say: each sees those before it in its own bucket, the latest ones.

    A bucket is cut into chunks from its first token on, so that where a token lies in it depends on earlier tokens
    alone. It sees its own chunk and the one before; memory is linear in the number of tokens.

    Args:
        qk: queries, [B, heads, N, D], in raster order.
        v: [B, heads, N, E].
        rotations: N(0, 1), [D, R, K]; all directions are used, whatever the number of tokens.
        bucket_size: T, tokens of a chunk; more than N is as N, in memory too.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    with without_autocast(qk.device):
        tokens, number = qk.shape[2], 2 * rotations.shape[-1]
        places_of_chunk = places_for(bucket_size, tokens)
        buckets = hash_buckets(qk, rotations)
        order = sorted_by_bucket(buckets)
        counts = buckets.new_zeros(*buckets.shape[:3], number).scatter_add(-1, buckets, torch.ones_like(buckets))
        within = ranks(order) - (counts.cumsum(-1) - counts).gather(-1, buckets)
        used = (counts + bucket_size - 1) // bucket_size  # chunks of each bucket
        first = (used.cumsum(-1) - used).gather(-1, buckets)
        # Always one more than are used: no bucket reaches round from the last chunk to the first.
        chunks = (tokens + bucket_size - 1) // bucket_size + number
        places = first * places_of_chunk + within + _round_numbers(order) * (chunks * places_of_chunk)
        slots = rotations.shape[1] * chunks
        own = places.new_full((*places.shape[:2], slots * places_of_chunk), tokens)
        numbers = torch.arange(tokens, device=qk.device).expand_as(places)
        own = own.scatter(2, places.flatten(2), numbers.flatten(2)).view(*own.shape[:2], slots, places_of_chunk)
        labels = own.new_full((*own.shape[:2], slots * places_of_chunk), -1)
        labels = labels.scatter(2, places.flatten(2), buckets.flatten(2)).view_as(own)
        seen, labels_seen = (torch.cat([t, t.roll(1, dims=2)], dim=-1) for t in (own, labels))
        pairs = (seen[..., None, :] <= own[..., :, None]) & (labels[..., :, None] == labels_seen[..., None, :])
        return _merged(qk, v, own, seen, pairs, places)


def hash_buckets(qk: Tensor, rotations: Tensor, used: Tensor | None = None) -> Tensor:
    """The direction, or its opposite, that a token is nearest to, in every round.

    Args:
        qk: [B, heads, N, D].
        rotations: [D, R, K].
        used: [B], how many of the directions count; all if None.
    Returns:
        [B, heads, R, N] from 0 to 2 K - 1.
    """
    tokens = at_least_float32(qk.detach())
    along = torch.einsum("bhnd,drk->bhrnk", tokens, rotations.to(tokens.dtype))
    both = torch.cat([along, -along], dim=-1)
    if used is not None:
        unused = torch.arange(rotations.shape[-1], device=qk.device) >= used[:, None]
        both = both.masked_fill(unused.repeat(1, 2)[:, None, None, None], -torch.inf)
    return both.argmax(dim=-1)


def sorted_by_bucket(buckets: Tensor) -> Tensor:
    """The numbers of the tokens by bucket [.., N], and by themselves inside one."""
    tokens = buckets.shape[-1]
    return (buckets * tokens + torch.arange(tokens, device=buckets.device)).argsort(dim=-1)


def _merged(
    qk: Tensor, v: Tensor, own: Tensor, seen: Tensor, pairs: Tensor, places: Tensor, times: Tensor | None = None
) -> Tensor:
    """The answers to chunks of queries `own` [B, heads, G, T] from keys `seen` [B, heads, G, S], at `places`."""
    last = qk.shape[2] - 1
    keys = F.normalize(at_least_float32(qk), dim=-1).to(qk.dtype)
    seen_at = seen.clamp(max=last)
    logits = taken(qk * qk.shape[-1] ** -0.5, own.clamp(max=last)) @ taken(keys, seen_at).mT
    itself = own[..., :, None] == seen[..., None, :]
    logits = at_least_float32(logits).masked_fill(~pairs, -torch.inf).masked_fill(itself, _SELF)
    if times is not None:
        logits = logits - times.to(logits.dtype).log()
    values, log_sums = attended_groups(logits, taken(v, seen_at))
    return merged_rounds(values.flatten(2, 3), log_sums.flatten(2), places).to(v.dtype)


def _used(mask: Tensor | None, size: int) -> Tensor | None:
    """How many pieces of `size` the real tokens fill, [B], at least 1."""
    return None if mask is None else ((mask.sum(dim=1) + size - 1) // size).clamp(min=1)


def _chunk_before(rounds: int, chunks: int, used: Tensor | None, device: torch.device) -> Tensor:
    """The chunk before each of R G, [B or 1, R G]; that of a round's first is the last that is used, a round before."""
    numbers = torch.arange(rounds * chunks, device=device)[None]
    rounds_before = torch.arange(-1, rounds - 1, device=device).remainder(rounds)[:, None].expand(-1, chunks)
    ends = rounds_before.reshape(1, -1) * chunks + (chunks if used is None else used[:, None]) - 1
    inside = torch.arange(chunks, device=device).expand(rounds, -1).reshape(1, -1) > 0
    return torch.where(inside, numbers - 1, ends)


def _meetings(room: Tensor, room_before: Tensor, own: Tensor, seen: Tensor) -> Tensor:
    """In how many places each query meets each key, [B, heads, R G, T, 2 T], at least 1.

    Args:
        room, room_before: [B, heads, R, N]; a token meets those whose room is its room, or the one before.
    """
    last = room.shape[-1] - 1
    of_queries, of_those_before, of_keys = (
        taken(t.transpose(2, 3), index.clamp(max=last))  # [B, heads, R G, T or 2 T, R]
        for t, index in ((room, own), (room_before, own), (room, seen))
    )
    times = torch.zeros((), dtype=torch.long, device=own.device)
    for number in range(room.shape[2]):
        keys = of_keys[..., None, :, :]
        times = times + (of_queries[..., :, None, number, None] == keys).sum(-1)
        times = times + (of_those_before[..., :, None, number, None] == keys).sum(-1)
    return times.clamp(min=1)


def _round_numbers(like: Tensor) -> Tensor:
    """[R, 1] for what is [.., R, N]."""
    return torch.arange(like.shape[-2], device=like.device)[:, None]
