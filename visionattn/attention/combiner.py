"""Combiner (Ren et al., Full Attention Transformer with Sparse Computation Cost, NeurIPS 2021, arXiv 2107.05768).

Compared with: the equations in loops; golden vectors `derived_combiner_*`, which transcribe `sqrt_fixed_full` of
google-research/google-research `combiner/combiner/tf/approx_attention.py` (Apache-2.0; read, not run).
Differs: looks both ways (the causal form of segments is `visionattn.ops.combiner.causal_combiner_attention`); segments
are tiles of a map, which need not divide it; tokens can be masked, and a query that sees no real key answers 0. The
axial form is ours, after the paper's axial-vertical one, which is causal: what is below the row gets summaries as what
is above it, and means stand for a span (the paper takes the largest number of every channel, the published code, where
it says "cummax", sums). Log-sparse and mixed forms are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import Claims, QKVAttention, check_extents
from visionattn.ops.block_attention import Blocks, blocks
from visionattn.ops.combiner import axial_combiner_attention, combiner_attention
from visionattn.ops.neighborhood import tile_blocks
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_PAPER = "Ren et al., NeurIPS 2021, arXiv 2107.05768"


@ATTENTION.register_module()
class Combiner(QKVAttention):
    """Each query sees its own segment directly, and of every segment a summary: attention to all of the map.

    Args:
        segment: extents of a segment, one per axis of the grid; None: the rows of the map. A sequence is then one
            segment: give it about the root of its length. Of a fixed extent, the cost grows as N^2 / (its tokens).
        mean_summaries: a segment's mean query and key stand for it; False: the largest number of every channel.
        count_own_once: without the summary of the query's own segment, which the published form sees besides its
            tokens; the weights are then a factorisation of full attention.
    Raises:
        TypeError: a segment that is one number.
        ValueError: a segment below 1, or of another length than the grid.
    """

    claims = Claims(
        paper=_PAPER,
        cost="N^1.5",
        convex=True,
        softmax_limit={"segment": (5, 7), "count_own_once": True},
        causal=True,
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        segment: Sequence[int] | None = None,
        mean_summaries: bool = False,
        count_own_once: bool = False,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )
        self.segment = None if segment is None else check_extents("segment", segment, self.grid)
        self.grid_dims = (1, 2, 3) if self.segment is None else (len(self.segment),)
        self.mean_summaries, self.count_own_once = mean_summaries, count_own_once

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return combiner_attention(
            q,
            k,
            v,
            self._segments(q_grid, q.device),
            mask,
            mean_summaries=self.mean_summaries,
            count_own_once=self.count_own_once,
            dropout=self.attn_drop if self.training else 0.0,
        )

    def _segments(self, grid: Grid, device: torch.device) -> Blocks:
        if self.segment is not None:
            return tile_blocks(grid, self.segment, (0,) * len(grid), device)
        tokens = math.prod(grid)
        rows = torch.arange(tokens, device=device).view(-1, grid[-1])
        return blocks(rows, rows, torch.ones(1, grid[-1], grid[-1], dtype=torch.bool, device=device), tokens)


@ATTENTION.register_module()
class CombinerAxial(QKVAttention):
    """Each query sees its row and column directly, and of every other column one summary of what is above its row and
    one of what is below: every token once."""

    claims = Claims(paper=_PAPER, cost="N^1.5", convex=True)
    grid_dims = (2,)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return axial_combiner_attention(q, k, v, q_grid, mask, self.attn_drop if self.training else 0.0)
