"""Sparse transformers (Child et al., arXiv 1904.10509, section 4.2): strided and fixed pairs, merged in every head.

Compared with: the definitions in loops; golden vectors `derived_sparse_strided_*` and `derived_sparse_fixed_*`; read,
not run: openai/sparse_attention@199cdd3c (no licence), whose pairs are the causal ones.
Differs: a query looks both ways unless causal=True; both parts of the strided pattern lie in one softmax, in openai's
code in two layers; all heads share the last tokens of a block, where openai's may take different ones. Tokens can be
masked, and a query that sees no real key answers 0; the keys may be another map's, of the same grid (causal: up to the
query's own place on it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from visionattn.attention.base import Claims
from visionattn.attention.neighborhood import BlockwiseAttention
from visionattn.ops.block_attention import Blocks
from visionattn.ops.sparse_patterns import fixed_pairs, strided_pairs
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_PAPER = "Child et al., 2019, arXiv 1904.10509"


@ATTENTION.register_module()
class StridedSparseAttention(BlockwiseAttention):
    """Each query sees the tokens nearer than `stride` in raster order, and those a multiple of `stride` away.

    Args:
        stride: l; None: the extent of the map's last axis, so that the second part is a column. A sequence is then seen
            whole: give it about the root of its length.
        causal: only tokens up to the query, in raster order.
    Raises:
        ValueError: stride is below 1.
    """

    claims = Claims(paper=_PAPER, cost="N^1.5", convex=True, softmax_limit={"stride": 35}, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        stride: int | None = None,
        causal: bool = False,
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
        _check_stride(stride)
        self.stride, self.causal = stride, causal

    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        stride = grid[-1] if self.stride is None else self.stride
        return strided_pairs(math.prod(grid), stride, causal=self.causal, device=device)


@ATTENTION.register_module()
class FixedSparseAttention(BlockwiseAttention):
    """Each query sees the block of `stride` tokens that it is in, and the last `summary` of every block.

    Args:
        stride: l; None: the extent of the map's last axis, so that blocks are rows. A sequence is then one block.
        summary: c.
        causal: only tokens up to the query, in raster order.
    Raises:
        ValueError: stride or summary is below 1.
    """

    claims = Claims(paper=_PAPER, cost="N^1.5", convex=True, softmax_limit={"stride": 35}, causal=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        stride: int | None = None,
        summary: int = 4,
        causal: bool = False,
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
        _check_stride(stride)
        if summary < 1:
            raise ValueError(f"summary={summary} must be 1 or more")
        self.stride, self.summary, self.causal = stride, summary, causal

    def parts(self, grid: Grid, device: torch.device) -> list[Blocks]:
        stride = grid[-1] if self.stride is None else self.stride
        return fixed_pairs(math.prod(grid), stride, self.summary, causal=self.causal, device=device)


def _check_stride(stride: int | None) -> None:
    if stride is not None and stride < 1:
        raise ValueError(f"stride={stride} must be 1 or more; None takes the extent of the map's last axis")
