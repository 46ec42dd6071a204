"""Linformer (Wang et al., Self-Attention with Linear Complexity, arXiv 2006.04768, equation 7), and its pooled form.

Compared with: lucidrains/linformer@970e1c3f (MIT), golden vectors `linformer_*`.
Differs: E and F are learned on a grid and resized at other resolutions (the reference cuts their rows off); padded keys
are left out before they are projected; share_kv shares E alone, as the paper's key-value sharing (in the reference the
keys then are the values, too). The paper's sharing between layers is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import Claims, ContextQKVAttention
from visionattn.ops.pooled_keys import pooled_tokens
from visionattn.ops.token_mixing import resized_on_grid
from visionattn.registry import ATTENTION
from visionattn.typing import Grid

_PAPER = "Wang et al., 2020, arXiv 2006.04768"


@ATTENTION.register_module()
class Linformer(ContextQKVAttention):
    """softmax(Q (E K)^T / sqrt(d)) F V: keys and values of all positions are summed into `rank` of each.

    Args:
        grid: where E and F are learned; needed.
        rank: k, the number of projected keys.
        headwise: E and F of each head; False: one pair for all, the paper's headwise sharing.
        share_kv: F is E.
        one_kv_head: all heads look at the same keys and values, of one head's width.
    Raises:
        ValueError: there is no grid, or rank is below 1.
    """

    claims = Claims(paper=_PAPER, cost="N")

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        rank: int = 256,
        headwise: bool = False,
        share_kv: bool = False,
        one_kv_head: bool = False,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
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
        if self.grid is None:
            raise ValueError("Linformer learns a weight for every position: give it a grid, such as grid=(32, 32)")
        if rank < 1:
            raise ValueError(f"rank={rank} must be 1 or more")
        self.grid_dims = (len(self.grid),)
        self.one_kv_head = one_kv_head
        if one_kv_head:
            self.qkv = nn.Linear(dim, self.key_dim + (self.key_dim + self.value_dim) // num_heads, bias=qkv_bias)
        shape = (num_heads if headwise else 1, rank, *self.grid)
        self.key_projection = nn.Parameter(torch.empty(shape).uniform_(-(rank**-0.5), rank**-0.5))
        self.value_projection = (
            None if share_kv else nn.Parameter(torch.empty(shape).uniform_(-(rank**-0.5), rank**-0.5))
        )

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        if mask is not None:
            hidden = ~mask[:, None, :, None]
            k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
        keys = _on_grid(self.key_projection, kv_grid)
        values = keys if self.value_projection is None else _on_grid(self.value_projection, kv_grid)
        return F.scaled_dot_product_attention(q, keys.to(k.dtype) @ k, values.to(v.dtype) @ v)

    def _project(self, tokens: Tensor) -> Tensor:
        projected = super()._project(tokens)
        if not self.one_kv_head:
            return projected
        return torch.cat([projected[..., : self.key_dim], self._repeated(projected[..., self.key_dim :])], dim=-1)

    def _project_two(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.one_kv_head:
            return super()._project_two(x, context)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x, weight[: self.key_dim], None if bias is None else bias[: self.key_dim])
        kv = F.linear(context, weight[self.key_dim :], None if bias is None else bias[self.key_dim :])
        kv = self._repeated(kv)
        return q, kv[..., : self.key_dim], kv[..., self.key_dim :]

    def _repeated(self, kv: Tensor) -> Tensor:
        """One head's keys and values for all heads, side by side."""
        width = self.key_dim // self.num_heads
        return torch.cat([part.repeat(1, 1, self.num_heads) for part in (kv[..., :width], kv[..., width:])], dim=-1)


@ATTENTION.register_module()
class LinformerPool(ContextQKVAttention):
    """Keys and values averaged over a coarse grid: a Linformer whose E and F are fixed, for any resolution.

    Args:
        pool: cells along each axis of the map; the paper speaks of mean pooling as one choice of E and F.
    Raises:
        ValueError: pool is below 1.
    """

    claims = Claims(paper=_PAPER, cost="N", convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        pool: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
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
        if pool < 1:
            raise ValueError(f"pool={pool} must be 1 or more")
        self.pool = pool

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        keys, real = pooled_tokens(k, kv_grid, self.pool, mask)
        values, _ = pooled_tokens(v, kv_grid, self.pool, mask)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=None if real is None else real[:, None, None])


def _on_grid(projection: Tensor, grid: Grid) -> Tensor:
    """[heads or 1, k, *grid0] as [heads or 1, k, N] of another grid, whose rows sum to as much."""
    old = tuple(projection.shape[2:])
    if old == tuple(grid):
        return projection.flatten(2)
    resized = resized_on_grid(projection.flatten(0, 1), grid) * (math.prod(old) / math.prod(grid))
    return resized.reshape(*projection.shape[:2], -1)
