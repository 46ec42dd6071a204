"""Efficient attention (Shen et al., Efficient Attention: Attention with Linear Complexities, WACV 2021, section 3.2).

Compared with: cmsflash/efficient-attention@46a5f9ea (MIT), golden vectors `efficient_attention_*`;
lucidrains/linear-attention-transformer@24ecf20b `ImageLinearAttention` (temperature d^(1/4)), golden vectors
`image_linear_attention_*`.
Differs: widths that the heads do not divide are refused (the reference drops channels); keys can be masked; the
residual is the block's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.efficient_attention import efficient_attention, scaled_efficient_attention
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_PAPER = "Shen et al., WACV 2021, arXiv 1812.01243"


@ATTENTION.register_module()
class EfficientAttention(ContextQKVAttention):
    """softmax over channels of Q, softmax over positions of K: a true attention distribution of rank d, linear in N.

    Args:
        num_heads: 1 is the paper's form.
        key_dim: the author's choice is dim // 2.
        temperature: divides q and k before their softmax; d ** 0.25 is the author's suggestion, 1 the paper's form.
        normalize_queries: False leaves out the softmax of Q.
    """

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True, convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 1,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        temperature: float = 1.0,
        normalize_queries: bool = True,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive; 1.0 is the paper's form")
        self.temperature = temperature
        self.normalize_queries = normalize_queries

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return efficient_attention(
            q, k, v, mask, temperature=self.temperature, normalize_queries=self.normalize_queries
        )


@ATTENTION.register_module()
class ScaledEfficientAttention(ContextQKVAttention):
    """Q (K^T V) / n: the dot-product non-local block in linear time.

    Args:
        num_heads: 1 is the paper's form.
        scale: replaces 1 / n; 1 / key_dim is the form of the first draft ("factorised attention").
    """

    claims = Claims(paper=_PAPER, cost="N", permutation_equivariant=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 1,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            proj_drop=proj_drop,
        )
        self.scale = scale

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        return scaled_efficient_attention(q, k, v, mask, scale=self.scale)
