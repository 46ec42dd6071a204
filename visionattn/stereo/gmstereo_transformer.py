"""GMStereo's transformer: each view attends itself in windows, then the other view along the rows.

Which of the two a layer does is its class; the official code finds it out by comparing the views' numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import TokenMixer
from visionattn.attention.build import build_attention
from visionattn.blocks.cross_view import attend_rows, build_context_mixer
from visionattn.ops.propagation import locally_propagated_disparity, propagated_disparity
from visionattn.ops.window import (
    WindowLayout,
    hidden_pairs,
    merge,
    partition,
    window_attention,
    window_bias,
    window_layout,
)
from visionattn.typing import AttentionConfig, Grid, Tokens


@dataclass(frozen=True)
class Windows:
    """Windows of a grid, and what their logits get."""

    layout: WindowLayout
    bias: Tensor | None


def split_windows(grid: Grid, splits: int, like: Tensor, *, shifted: bool) -> Windows | None:
    """The grid cut into `splits` windows along each axis, shifted by half a window; None where there is but one."""
    if splits == 1:
        return None
    window = tuple(extent // splits for extent in grid)
    shift = tuple(length // 2 if shifted else 0 for length in window)
    layout = window_layout(grid, window, shift, device=like.device)
    hidden = hidden_pairs(layout)
    area = layout.tokens.shape[1]
    return Windows(layout, None if hidden is None else window_bias(like.new_zeros(1, area, area), hidden))


class FeatureTransformer(nn.Module):
    """Layers over both views' features.

    Args:
        dim: channels.
        layers: how many.
        expansion: hidden channels of the perceptron over what goes in.
        self_attention, cross_attention, cross_rows: as `GMStereo`.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        expansion: int,
        self_attention: AttentionConfig | None,
        cross_attention: AttentionConfig | None,
        cross_rows: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Block(
                SelfLayer(dim, None if self_attention is None else build_attention(self_attention, dim)),
                CrossLayer(
                    dim,
                    None if cross_attention is None else build_context_mixer(cross_attention, dim, rows=cross_rows),
                    expansion,
                    rows=cross_rows,
                ),
            )
            for _ in range(layers)
        )

    def forward(self, left: Tokens, right: Tokens, splits: int, *, split_rows: bool) -> tuple[Tokens, Tokens]:
        """Both maps after all layers.

        Args:
            left, right: [B, H, W, C].
            splits: windows along each side, which it divides.
            split_rows: the published cross-view attention stays in windows of the row.
        """
        height, width = left.shape[1:3]
        # Odd layers shift their windows by half.
        squares = [split_windows((height, width), splits, left, shifted=shifted) for shifted in (False, True)]
        rows = [
            split_windows((width,), splits if split_rows else 1, left, shifted=shifted) for shifted in (False, True)
        ]
        views = torch.cat([left, right])
        for index, block in enumerate(self.layers):
            views = block(views, squares[index % 2], rows[index % 2])
        out_left, out_right = views.chunk(2)
        return out_left, out_right


class _Block(nn.Module):
    """A layer of the transformer on both views [2 B, H, W, C], left ones first."""

    def __init__(self, self_attn: nn.Module, cross_attn_ffn: nn.Module) -> None:
        super().__init__()
        self.self_attn = self_attn
        self.cross_attn_ffn = cross_attn_ffn

    def forward(self, views: Tensor, squares: Windows | None, rows: Windows | None) -> Tensor:
        others = torch.cat(views.chunk(2)[::-1])  # as they came in: not yet after their attention to themselves
        return self.cross_attn_ffn(self.self_attn(views, squares), others, rows)


class _Layer(nn.Module):
    """Projections and norm of the published single-head attention; with a mixer, its norm alone."""

    def __init__(self, dim: int, mixer: TokenMixer | None) -> None:
        super().__init__()
        self.attn = mixer
        if mixer is None:
            self.q_proj, self.k_proj, self.v_proj, self.merge = (_linear(dim, dim) for _ in range(4))
        self.norm1 = nn.LayerNorm(dim)

    def _published(self, x: Tensor, context: Tensor, windows: Windows | None) -> Tensor:
        """Single-head attention of x [B, *grid, C] in windows of the context, which has the same shape."""
        q, k, v = self.q_proj(x), self.k_proj(context), self.v_proj(context)
        q, k, v = (t.flatten(1, -2).unsqueeze(1) for t in (q, k, v))  # [B, 1, N, C]
        if windows is None:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            bias = None if windows.bias is None else windows.bias.to(q.dtype)
            q, k, v = (partition(t, windows.layout) for t in (q, k, v))
            out = merge(window_attention(q, k, v, bias), windows.layout)
        return self.merge(out.reshape(x.shape))


class SelfLayer(_Layer):
    """x + norm(attention(x))."""

    def forward(self, x: Tensor, windows: Windows | None) -> Tensor:
        message = self._published(x, x, windows) if self.attn is None else self.attn(x)
        return x + self.norm1(message)


class CrossLayer(_Layer):
    """x + norm(perceptron(x, norm(attention of x to the other view)))."""

    def __init__(self, dim: int, mixer: TokenMixer | None, expansion: int, *, rows: bool) -> None:
        super().__init__(dim, mixer)
        self.rows = rows
        self.mlp = nn.Sequential(_linear(2 * dim, 2 * dim * expansion), nn.GELU(), _linear(2 * dim * expansion, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, other: Tensor, windows: Windows | None) -> Tensor:
        if self.attn is None:
            message = self._published(x.flatten(0, 1), other.flatten(0, 1), windows).reshape(x.shape)
        else:
            message = attend_rows(self.attn, x, other) if self.rows else self.attn(x, other)
        message = self.norm1(message)
        return x + self.norm2(self.mlp(torch.cat([x, message.to(x.dtype)], dim=-1)))


class Propagation(nn.Module):
    """A disparity averaged over positions with like features: over all of the map, or around each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for linear in (self.q_proj, self.k_proj):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, features: Tokens, disparity: Tensor) -> Tensor:
        """[B, H, W] from features [B, H, W, C] and disparities [B, H, W], over the whole map."""
        query = self.q_proj(features)
        return propagated_disparity(disparity, query, self.k_proj(query))  # of the query: so the weights were trained

    def around(self, features: Tokens, disparity: Tensor, radius: int) -> Tensor:
        """The same over the positions up to `radius` away."""
        return locally_propagated_disparity(disparity, self.q_proj(features), self.k_proj(features), radius)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(linear.weight)
    return linear
