"""Long-short attention (Zhu et al., Long-Short Transformer, NeurIPS 2021, arXiv 2107.02192, sections 3.2 to 3.4).

Compared with: NVIDIA/transformer-ls@1527c5cc `imagenet/models/layers/transformer_ls.py` (MIT), golden vectors
`transformer_ls_vision_*`; its pieces with lucidrains/long-short-transformer@cce14168 (MIT), `transformer_ls_1d_*`.
Differs: maps of any shape (the reference takes square ones that windows divide); padded tokens enter neither windows
nor sums, and a map without a real token answers what proj makes of zeros; every offset of a window has its own relative
position bias (the reference counts 2 p + w offsets a row, where there are 2 (w + p) - 1, so several share one); more
than one token without a place may look at the map (the reference multiplies weights and values elementwise,
which is right for one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.attention.base import (
    Claims,
    TokenMixer,
    check_extents,
    check_heads,
    check_no_context,
    check_probabilities,
    split_heads,
)
from visionattn.ops.block_attention import Source, all_pairs, joint_attention
from visionattn.ops.long_short import answers_of_tokens, dynamic_projection, tile_offset_index
from visionattn.ops.neighborhood import tile_blocks
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens


@ATTENTION.register_module()
class LongShortAttention(TokenMixer):
    """One softmax over a window with half a window around it, and over `rank` sums of the whole map (all heads' own).

    The weights of the sums are learned from the map (dynamic projection). Keys and values are normalised over all
    channels, and the sums once more (DualLN).

    Args:
        window: extents of the windows of queries, one per axis of the grid; their keys reach half a window, at least
            one position, further on every side. None: sums alone.
        rank: r, the number of sums in every head; 0: windows alone.
        relative_position_bias: a learned number for every offset between query and key of a window.
    Raises:
        TypeError: a window that is one number.
        ValueError: a window below 1, of another length than the grid, or without one a rank of 0 or a bias.
    """

    claims = Claims(paper="Zhu et al., NeurIPS 2021, arXiv 2107.02192", cost="N")
    offset_index: Tensor | None
    relative_position_bias_table: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        window: Sequence[int] | None = (7, 7),
        rank: int = 8,
        relative_position_bias: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid)
        check_heads(num_heads, dim, "dim")
        check_probabilities(attn_drop=attn_drop, proj_drop=proj_drop)
        if rank < 0:
            raise ValueError(f"rank={rank} must be 0 or more; 0 leaves the windows alone")
        self.window = None if window is None else check_extents("window", window, self.grid)
        if self.window is None and (rank == 0 or relative_position_bias):
            raise ValueError(
                f"window=None leaves sums of the whole map alone, but rank={rank} and relative_position_bias="
                f"{relative_position_bias}; give a window such as (7, 7), or a rank without a bias"
            )
        self.grid_dims = (1, 2, 3) if self.window is None else (len(self.window),)
        self.num_heads, self.rank, self.attn_drop = num_heads, rank, attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.token_norm = nn.LayerNorm(dim)
        self.dynamic_projection = nn.Linear(dim, num_heads * rank) if rank else None
        self.sum_norm = nn.LayerNorm(dim) if rank else None
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        table, index = None, None
        if self.window is not None and relative_position_bias:
            index = tile_offset_index(self.window, self._margin())
            offsets = [2 * (n + p) - 1 for n, p in zip(self.window, self._margin(), strict=True)]
            table = nn.Parameter(torch.empty(math.prod(offsets), num_heads))
            nn.init.trunc_normal_(table, std=0.02)
        self.register_parameter("relative_position_bias_table", table)
        self.register_buffer("offset_index", index, persistent=False)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def forward(self, x: Tokens, mask: Tensor | None = None, *, context: None = None) -> Tokens:
        check_no_context(self, context)
        self.check_map(x, mask)
        return self._mixed(x, None, mask)[0]

    def forward_with_tokens(self, x: Tokens, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tokens, Tensor]:
        """The map and tokens that lie nowhere on it, as a class token, after looking at each other.

        Every position sees the tokens besides its window and the sums; the tokens see themselves and the map's answers.

        Args:
            x: [B, *grid, C].
            tokens: [B, P, C].
            mask: [B, *grid] bool, True where a token of x is real.
        Returns:
            [B, *grid, C] and [B, P, C].
        """
        self.check_map(x, mask)
        if tokens.dim() != 3 or len(tokens) != len(x) or tokens.shape[-1] != self.dim or not tokens.shape[1]:
            raise ValueError(
                f"{type(self).__name__} expects tokens of shape [{len(x)}, P, {self.dim}] beside the map, P 1 or more, "
                f"got {list(tokens.shape)}"
            )
        out, seen = self._mixed(x, tokens, mask)
        assert seen is not None
        return out, seen

    def _mixed(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        grid: Grid = tuple(x.shape[1:-1])
        flat, real = x.flatten(1, -2), None if mask is None else mask.flatten(1)
        first = 0 if tokens is None else tokens.shape[1]
        q, k, v = self.qkv(flat if tokens is None else torch.cat([tokens, flat], dim=1)).chunk(3, dim=-1)
        k, v = (split_heads(self.token_norm(t).to(q.dtype), self.num_heads) for t in (k, v))
        q = split_heads(q, self.num_heads)
        sources = self._sources(flat, grid, k[:, :, first:], v[:, :, first:], real)
        if tokens is not None:
            pairs = all_pairs(torch.ones(flat.shape[1], first, dtype=torch.bool, device=x.device))
            sources.append(Source(pairs, k[:, :, :first], v[:, :, :first]))
        out = joint_attention(q[:, :, first:], sources, self.attn_drop if self.training else 0.0)
        if tokens is not None:
            q, k, v = (t[:, :, :first] for t in (q, k, v))
            out = torch.cat([answers_of_tokens(q, k, v, out, real), out], dim=2)
        out = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return out[:, first:].reshape(x.shape), None if tokens is None else out[:, :first]

    def _sources(self, flat: Tensor, grid: Grid, k: Tensor, v: Tensor, mask: Tensor | None) -> list[Source]:
        """What the map offers to its own queries: windows, and sums of all of it."""
        sources = []
        if self.window is not None:
            bias = None
            if self.offset_index is not None and self.relative_position_bias_table is not None:
                index = self.offset_index
                bias = self.relative_position_bias_table[index.flatten()].mT.reshape(-1, *index.shape)
            pairs = tile_blocks(grid, self.window, self._margin(), flat.device)
            sources.append(Source(pairs, k, v, mask, bias))
        if self.dynamic_projection is not None:
            # Channels of a head lie next to each other, as in the reference: [B, N, heads, R].
            scores = split_heads(self.dynamic_projection(flat), self.num_heads)
            k, v = (self._normalized_sums(scores, t, mask) for t in (k, v))
            real = None if mask is None else mask.any(dim=1, keepdim=True).expand(-1, self.rank)
            pairs = all_pairs(torch.ones(flat.shape[1], self.rank, dtype=torch.bool, device=flat.device))
            sources.append(Source(pairs, k, v, real))
        return sources

    def _normalized_sums(self, scores: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[B, heads, R, d], normalised over the channels of all heads."""
        assert self.sum_norm is not None
        sums = dynamic_projection(scores, tokens, mask).to(tokens.dtype)
        return split_heads(self.sum_norm(sums.transpose(1, 2).flatten(2)).to(tokens.dtype), self.num_heads)

    def _margin(self) -> Grid:
        """Half a window, at least one position."""
        assert self.window is not None
        return tuple(max(length // 2, 1) for length in self.window)
