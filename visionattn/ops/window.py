"""Attention inside the (shifted) windows of a grid: Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030).

The grid is padded to whole windows and rolled, so that the windows at the far edge hold, after a shift, tokens of both
edges; their `regions` keep the two apart. Padding, roll, partition and the order of the heads are one index:
`partition` reads it, `merge` reads its inverse. Everything holds for grids and windows of any number of axes.

Letters: W windows, T positions of a window, N tokens of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.typing import Grid


@dataclass(frozen=True)
class WindowLayout:
    """Where the tokens of a grid lie in its windows.

    Attributes:
        grid: its extent; N tokens.
        tokens: [W, T], the token at each position; N where there is padding.
        rows: [W * heads * T], the same for the rows of a [N, heads] table (row N holds the padding).
        slots: [N * heads], the inverse: the place of each row in a [W, heads, T] table.
        regions: [W, T], equal for positions of one window that lie on one side of the seam; None without a shift.
        padded: some positions are padding.
    """

    grid: Grid
    tokens: Tensor
    rows: Tensor
    slots: Tensor
    regions: Tensor | None
    padded: bool


def window_layout(
    grid: Grid,
    window: Grid,
    shift: Grid,
    heads: int = 1,
    *,
    shift_before_padding: bool = False,
    device: torch.device | None = None,
) -> WindowLayout:
    """The layout of windows that start at `shift`, one per axis.

    Args:
        grid, window, shift: one entry per axis; 0 <= shift < window.
        heads: the head is an axis of the rows.
        shift_before_padding: rolls the unpadded grid and pads behind its seam, instead of padding first.
    """
    tokens, regions, window_of, place_of = (torch.zeros((), dtype=torch.long, device=device) for _ in range(4))
    real = torch.ones((), dtype=torch.bool, device=device)
    for axis, (extent, length, offset) in enumerate(zip(grid, window, shift, strict=True)):
        count = (extent + length - 1) // length  # ONNX divides towards zero: no negative numbers
        rolled = extent if shift_before_padding else count * length
        around = torch.full((), rolled, device=device)  # a divisor that is a symbolic number has no ONNX form
        by_window, by_token = [1] * (2 * len(grid)), [1] * len(grid)
        by_window[axis], by_window[len(grid) + axis], by_token[axis] = count, length, extent

        position = torch.arange(count * length, device=device)
        token = torch.where(position < rolled, (position + offset) % around, position).view(by_window)
        tokens, real = tokens * extent + token, real & (token < extent)
        regions = 2 * regions + (position >= count * length - offset).view(by_window)

        # From above: inductor's CPU code fails on a remainder of what may be negative.
        position = ((torch.arange(extent, device=device) + (around - offset)) % around).view(by_token)
        window_of = window_of * count + position // length
        place_of = place_of * length + position % length

    area = math.prod(window)
    tokens = torch.where(real, tokens, math.prod(grid)).reshape(-1, area)
    head = torch.arange(heads, device=device)
    return WindowLayout(
        grid=grid,
        tokens=tokens,
        rows=(tokens[:, None, :] * heads + head[:, None]).flatten(),
        slots=((window_of.flatten()[:, None] * heads + head) * area + place_of.flatten()[:, None]).flatten(),
        regions=regions.reshape(-1, area) if any(shift) else None,
        # Of a symbolic extent it is not asked: an export would be pinned to the answer.
        padded=any(not isinstance(extent, int) or extent % length for extent, length in zip(grid, window, strict=True)),
    )


def partition(x: Tensor, layout: WindowLayout, padding: Tensor | None = None) -> Tensor:
    """The tokens [B, heads, N, D] in their windows, [B, W, heads, T, D].

    Args:
        padding: [heads, D], what stands where there is padding; zeros if None.
    """
    batch, heads, _, width = x.shape
    rows = x.transpose(1, 2)
    if layout.padded:
        padding = x.new_zeros(heads, width) if padding is None else padding.to(x.dtype)
        rows = torch.cat([rows, padding.expand(batch, 1, heads, width)], dim=1)
    return torch.unflatten(rows.flatten(1, 2).index_select(1, layout.rows), 1, (-1, heads, layout.tokens.shape[1]))


def merge(windows: Tensor, layout: WindowLayout) -> Tensor:
    """The inverse of `partition`: [B, W, heads, T, E] back to [B, heads, N, E], without the padding."""
    rows = windows.flatten(1, 3).index_select(1, layout.slots)
    return torch.unflatten(rows, 1, (-1, windows.shape[2])).transpose(1, 2)


def hidden_pairs(layout: WindowLayout, mask: Tensor | None = None, *, mask_padding: bool = True) -> Tensor | None:
    """True where a query must not see a key, [1 or B, W, 1 or T, T] (query, key); None if none.

    Args:
        mask: [B, N] bool, True where a token is real.
        mask_padding: False lets padding be seen.
    """
    hidden = None
    if layout.regions is not None:
        hidden = (layout.regions[:, :, None] != layout.regions[:, None, :])[None]
    unreal = None
    if mask is not None:
        unreal = ~F.pad(mask, (0, 1), value=not mask_padding)[:, layout.tokens]  # [B, W, T]
    elif mask_padding and layout.padded:
        unreal = (layout.tokens == math.prod(layout.grid))[None]
    if unreal is not None:
        unreal = unreal[:, :, None, :]
        hidden = unreal if hidden is None else hidden | unreal
    return hidden


def relative_position_index(window: Sequence[int]) -> Tensor:
    """For every (query, key) of a window the row of its bias table, [T, T]: row-major in the offset query - key."""
    index = torch.zeros((), dtype=torch.long)
    for axis, length in enumerate(window):
        place = torch.arange(length)
        offset = place[:, None] - place + length - 1
        shape = [1] * (2 * len(window))
        shape[axis] = shape[len(window) + axis] = length
        index = index * (2 * length - 1) + offset.view(shape)
    area = math.prod(window)
    return index.reshape(area, area)


def window_bias(relative: Tensor, hidden: Tensor | None) -> Tensor:
    """What is added to the logits, [1 or B, 1 or W, heads, T, T].

    A hidden pair gets the lowest finite number, not -inf: a query that sees no key then stays finite.

    Args:
        relative: [heads, T, T].
        hidden: as `hidden_pairs` gives it.
    """
    if hidden is None:
        return relative[None, None]
    return relative.masked_fill(hidden[:, :, None], torch.finfo(relative.dtype).min)


def window_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(Q K^T / sqrt(D) + bias) V in each window.

    Args:
        q, k: [B, W, heads, T, D].
        v: [B, W, heads, T, E].
        bias: [1 or B, 1 or W, heads, T, T].
        dropout: of the attention weights.
    Returns:
        [B, W, heads, T, E].
    """
    if bias is not None and bias.requires_grad and q.device.type == "cpu":
        # No fused CPU kernel gives a bias its gradient; what PyTorch does instead is slower than this.
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        return F.dropout(logits.softmax(dim=-1), dropout) @ v
    # The fused kernels take four dimensions: join those over which a bias can still be broadcast without a copy.
    joined = (0, 1) if bias is None or bias.shape[1] == 1 else (1, 2)
    out = F.scaled_dot_product_attention(
        q.flatten(*joined),
        k.flatten(*joined),
        v.flatten(*joined),
        attn_mask=None if bias is None else bias.flatten(*joined),
        dropout_p=dropout,
    )
    return out.reshape(v.shape)
