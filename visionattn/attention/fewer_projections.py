"""Attention with fewer projections (Hosseini and Hosseini, You Need to Pay Better Attention, arXiv 2403.01643).

Compared with: NMesaC/pay-better-attention-pytorch-keras@bf1c585e (MIT), golden vectors `hosseini_*`.
Differs: the softmax runs over keys, as in the paper (that code takes it over queries); the token mixing of the super
form is learned on a grid and resized, so that maps of other sizes go through; it has no bias unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.attention.base import (
    Claims,
    ContextMixer,
    check_heads,
    check_no_context_mask,
    check_probabilities,
    split_heads,
)
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.token_mixing import resized_token_mixing
from visionattn.registry import ATTENTION
from visionattn.typing import Tokens

_PAPER = "Hosseini and Hosseini, 2024, arXiv 2403.01643"


class RawValueAttention(ContextMixer):
    """Softmax attention whose values are slices of the map itself; what the three forms share."""

    def __init__(
        self, dim: int, grid: Sequence[int] | None, *, num_heads: int, proj_drop: float, projections: int, bias: bool
    ) -> None:
        super().__init__(dim, grid)
        check_heads(num_heads, dim, "dim")
        check_probabilities(proj_drop=proj_drop)
        self.num_heads = num_heads
        self.query_key = nn.Linear(dim, projections * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(  # type: ignore[override]  # positional order: the context comes before the masks
        self,
        x: Tokens,
        context: Tokens | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tokens:
        self.check_map(x, mask)
        if context is None:
            check_no_context_mask(self, context_mask)
            source, key_mask = x, mask
        else:
            self.check_context(x, context, context_mask)
            source, key_mask = context, context_mask
        weight, bias = self.query_key.weight, self.query_key.bias
        query = F.linear(x, weight[: self.dim], None if bias is None else bias[: self.dim])
        key = source
        if len(weight) > self.dim:
            key = F.linear(source, weight[self.dim :], None if bias is None else bias[self.dim :])
        maps = (query, key.to(query.dtype), self.values(source, key_mask).to(query.dtype))
        q, k, v = (split_heads(t.flatten(1, -2), self.num_heads) for t in maps)
        out = self.attend(q, k, v, None if key_mask is None else key_mask.flatten(1))
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2))).reshape(x.shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """softmax(q k^T / sqrt(d)) v of [B, heads, N or M, d]; mask [B, M] bool, True where a key is real."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])

    def values(self, source: Tensor, mask: Tensor | None) -> Tensor:
        """The map that is attended, [B, *grid, C]."""
        return source


@ATTENTION.register_module()
class OptimisedAttention(RawValueAttention):
    """No projection of values: softmax(Q K^T / sqrt(d)) X, then the output projection; 3/4 of the weights.

    Args:
        qkv_bias: a bias on q and k.
    """

    claims = Claims(paper=_PAPER, cost="N^2", permutation_equivariant=True, convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, num_heads=num_heads, proj_drop=proj_drop, projections=2, bias=qkv_bias)


@ATTENTION.register_module()
class EfficientProjectionAttention(RawValueAttention):
    """No projection of keys either: softmax(Q X^T / sqrt(d)) X; half the weights.

    The paper calls it efficient attention, as Shen et al. call another mechanism.
    """

    claims = Claims(paper=_PAPER, cost="N^2", permutation_equivariant=True, convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, num_heads=num_heads, proj_drop=proj_drop, projections=1, bias=qkv_bias)


@ATTENTION.register_module()
class SuperAttention(RawValueAttention):
    """EfficientProjectionAttention with values A X, A learned for every pair of positions of `grid`.

    Args:
        mixing_bias: a number for every position, added to A X.
    Raises:
        ValueError: there is no grid.
    """

    claims = Claims(paper=_PAPER, cost="N^2", convex=True)

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        num_heads: int = 8,
        qkv_bias: bool = True,
        mixing_bias: bool = False,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, grid, num_heads=num_heads, proj_drop=proj_drop, projections=1, bias=qkv_bias)
        if self.grid is None:
            raise ValueError("SuperAttention mixes all positions of a grid: give it one, such as grid=(32, 32)")
        self.grid_dims = (len(self.grid),)
        self.mixing = nn.Parameter(torch.empty(*self.grid, *self.grid))
        positions = self.mixing[(0,) * len(self.grid)].numel()
        nn.init.uniform_(self.mixing, -(positions**-0.5), positions**-0.5)
        self.mixing_bias = nn.Parameter(torch.zeros(*self.grid)) if mixing_bias else None

    def check_prefix_tokens(self) -> None:
        self.refuse_prefix_tokens()

    def values(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with without_autocast(source.device):
            tokens = at_least_float32(source)
            if mask is not None:
                tokens = tokens.masked_fill(~mask[..., None], 0.0)
            grid = tuple(source.shape[1:-1])
            mixing, bias = resized_token_mixing(self.mixing.to(tokens.dtype), grid, self.mixing_bias)
            mixed = mixing @ tokens.flatten(1, -2)
            return (mixed if bias is None else mixed + bias[:, None].to(mixed.dtype)).reshape(source.shape)
