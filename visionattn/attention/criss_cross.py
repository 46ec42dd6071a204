"""Criss-cross attention (Huang et al., CCNet, ICCV 2019) and axial attention (Ho et al., arXiv 1912.12180).

Compared with: the definitions in loops; golden vectors `derived_sparse_axial_8x8`, whose pattern is that of
facebookresearch/xformers@ca6d2aa0 (BSD-3-Clause) `axial_2d_pattern`.
Differs: logits are divided by sqrt(d) and heads may be several, in CCNet one head without a scale; CCNet's residual and
its learned factor are the block's; its recurrence is two such blocks; an axial layer has no position embedding of its
own. Tokens can be masked, and a query that sees no real key answers 0; the keys may be another map's, of the same grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention, SameGridMixer
from visionattn.attention.neighborhood import BlockwiseAttention
from visionattn.ops.axial import axial_attention, crossing_lines
from visionattn.ops.block_attention import Blocks
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


@ATTENTION.register_module()
class CrissCrossAttention(BlockwiseAttention):
    """One softmax over the lines of all axes that cross at the query: in two dimensions its row and its column."""

    claims = Claims(paper="Huang et al., ICCV 2019, arXiv 1811.11721", cost="N^1.5", convex=True)
    grid_dims = (2, 3)

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

    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        return crossing_lines(grid, device)


@ATTENTION.register_module()
class AxialAttention(ContextQKVAttention, SameGridMixer):
    """Each query sees the line of the map that runs through it along one axis; layers take turns.

    Args:
        axis: of the grid: in two dimensions 0 looks along columns, 1 along rows.
    Raises:
        ValueError: axis is below 0, or the map has no such axis.
    """

    claims = Claims(paper="Ho et al., 2019, arXiv 1912.12180", cost="N^1.5", convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        axis: int = 0,
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
        dims = 3 if self.grid is None else len(self.grid)
        if not 0 <= axis < dims:
            raise ValueError(f"axis={axis} is no axis of a grid of {dims} dimensions; use 0 to {dims - 1}")
        self.axis = axis
        self.grid_dims = tuple(n for n in (1, 2, 3) if n > axis)

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return axial_attention(q, k, v, q_grid, self.axis, mask, self.attn_drop if self.training else 0.0)
