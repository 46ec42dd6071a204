"""Attention to a neighbourhood (Hassani et al., Neighborhood Attention Transformer, CVPR 2023), which may be dilated
(arXiv 2209.15001); and cut off at the edges: N-gram attention (Chelba et al., arXiv 2001.04589) on a map.

Compared with: the equations in loops; facebookresearch/xformers@ca6d2aa0 (BSD-3-Clause) `local_2d_pattern` and
`dilated_2d_pattern`, golden vectors `derived_sparse_xformers_*`; the n-gram equation, `derived_sparse_ngram*`.
Differs: no relative position bias; maps smaller than the neighbourhood are seen whole (NATTEN refuses them); tokens can
be masked, and a query that sees no real key answers 0; the keys may be another map's, of the same grid.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention, SameGridMixer
from visionattn.ops.block_attention import Blocks, block_attention
from visionattn.ops.neighborhood import local_blocks, neighborhood_blocks
from visionattn.registry import ATTENTION
from visionattn.typing import Grid


class BlockwiseAttention(ContextQKVAttention, SameGridMixer):
    """Softmax attention over a pattern of pairs that depends on the grid alone.

    Of a context, which lies on the same grid, a query sees the places that it would see of its own map.
    """

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    @abstractmethod
    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        """The pattern on this grid."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return block_attention(
            q, k, v, self.parts(q_grid, q.device), mask, dropout=self.attn_drop if self.training else 0.0
        )


@ATTENTION.register_module()
class NeighborhoodAttention(BlockwiseAttention):
    """Each query sees its `kernel` nearest positions along every axis; at an edge the neighbourhood moves inwards.

    Args:
        kernel: odd; a shorter axis is seen whole.
        dilation: steps between neighbours.
    Raises:
        ValueError: kernel is even or below 1, or dilation is below 1.
    """

    claims = Claims(
        paper="Hassani et al., CVPR 2023, arXiv 2204.07143", cost="N", convex=True, softmax_limit={"kernel": 7}
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        kernel: int = 7,
        dilation: int = 1,
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
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, such as {max(1, kernel) | 1}")
        _check_dilation(dilation)
        self.kernel, self.dilation = kernel, dilation

    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        return [neighborhood_blocks(grid, self.kernel, self.dilation, device)]


@ATTENTION.register_module()
class LocalAttention(BlockwiseAttention):
    """Each query sees the positions no farther than `radius`; at an edge the neighbourhood is cut off.

    Args:
        radius: in steps of `dilation`; 0 is the query's own position alone.
        dilation: steps between neighbours; with a radius as long as the map, every dilation-th position.
        norm: order of the distance: inf a square (Chebyshev), 2 a disc, 1 a diamond.
    Raises:
        ValueError: radius is below 0, dilation or norm below 1.
    """

    claims = Claims(
        paper="Chelba et al., 2020, arXiv 2001.04589",
        cost="N",
        convex=True,
        softmax_limit={"radius": 6},
        causal=True,
    )

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        radius: int = 3,
        dilation: int = 1,
        norm: float = math.inf,
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
        if radius < 0:
            raise ValueError(f"radius={radius} must be 0 or more")
        _check_dilation(dilation)
        if not norm >= 1:
            raise ValueError(f"norm={norm} must be 1 or more; float('inf') makes the neighbourhood a square")
        self.radius, self.dilation, self.norm = radius, dilation, norm

    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        return [local_blocks(grid, self.radius, self.dilation, self.norm, device)]


def _check_dilation(dilation: int) -> None:
    if dilation < 1:
        raise ValueError(f"dilation={dilation} must be 1 or more; 1 leaves no gaps")
