"""Attention among tokens that random hashes bring together, in several rounds: what such mechanisms share.

Letters: R rounds, G groups of T tokens, N tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.precision import at_least_float32


def places_for(size: int, tokens: int) -> int:
    """The places of a group of `size`: no more than there are tokens, a number that an export may leave open."""
    least: int = torch.sym_min(size, tokens)  # type: ignore[assignment]
    return least


def taken(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens [B, heads, N, D] at index [B, heads, ..]: [B, heads, .., D]."""
    flat = index.flatten(2)[..., None].expand(-1, -1, -1, tokens.shape[-1])
    return tokens.gather(2, flat).view(*index.shape, tokens.shape[-1])


def ranks(order: Tensor) -> Tensor:
    """Where each token stands in an order [.., N], its inverse."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places)


def attended_groups(logits: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(logits) v and the logarithm of its denominator; 0 and the least number where all logits are -inf.

    Args:
        logits: [.., T, S].
        v: [.., S, E].
    Returns:
        [.., T, E] in float32 at least, [.., T].
    """
    logits = at_least_float32(logits)
    least = torch.finfo(logits.dtype).min
    largest = logits.detach().amax(dim=-1, keepdim=True).clamp(min=least)
    weights = (logits - largest).exp()
    total = weights.sum(dim=-1, keepdim=True)
    empty = total == 0
    total = total.masked_fill(empty, 1.0)
    values = at_least_float32((weights / total).to(v.dtype) @ v)
    return values, (largest + total.log()).squeeze(-1)


def merged_rounds(values: Tensor, log_sums: Tensor, places: Tensor) -> Tensor:
    """Every token's answer over all rounds, each weighed by its denominator: as if all were one softmax.

    Args:
        values: [B, heads, places, E], the answers of all rounds.
        log_sums: [B, heads, places].
        places: [B, heads, R, N], where the answers of each token are.
    Returns:
        [B, heads, N, E].
    """
    weights = taken(log_sums[..., None], places).softmax(dim=2)  # [B, heads, R, N, 1]
    return (weights * taken(values, places)).sum(dim=2)
