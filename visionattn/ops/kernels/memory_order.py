"""The memory order of an op's answer, that of its queries or channels last: what follows then copies nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def empty_answer(q: Tensor, v: Tensor) -> Tensor:
    """An uninitialised [B, heads, N, E] in the dtype of v, laid out as q [B, heads, N, D] is.

    Channels first [B, heads, E, N] for channels-first queries; token by token [B, N, heads, E] where the heads of a
    token lie side by side in q, as a projection leaves them; else as it is named.
    """
    batch, heads, tokens, _ = q.shape
    width = v.shape[-1]
    if q.stride(-1) != 1 and q.stride(-2) == 1:
        return v.new_empty(batch, heads, width, tokens).mT
    if q.stride(1) < q.stride(2):
        return v.new_empty(batch, tokens, heads, width).transpose(1, 2)
    return v.new_empty(batch, heads, tokens, width)


def empty_tokens(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised map like x [B, N, C]: channels first where x is, else token by token."""
    batch, tokens, channels = x.shape
    if x.stride(-1) != 1 and x.stride(-2) == 1:
        return x.new_empty(batch, channels, tokens, dtype=dtype).mT
    return x.new_empty(batch, tokens, channels, dtype=dtype)


def empty_volume(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised volume [B, C, D, H, W] with its channels last in memory, in the dtype of `like`."""
    batch, channels, *grid = shape
    return like.new_empty(batch, *grid, channels).movedim(-1, 1)
